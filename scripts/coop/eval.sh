#!/usr/bin/env bash
# CoOp, weights of main.sh (imagenet CFG end 16 16 False, or NCTX and SHOTS) tested on another dataset, seeds 1 2 3
# (or SEEDS).
# Usage: bash scripts/coop/eval.sh DATASET CFG [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" eval coop "$@"
