#!/usr/bin/env bash
# CoOp as its paper runs it: all classes, seeds 1 2 3 (or SEEDS).
#   CTP   position of the class token: end, middle, front
#   NCTX  number of context tokens
#   CSC   class-specific contexts: True, False
# Usage: bash scripts/coop/main.sh DATASET CFG CTP NCTX SHOTS CSC [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" main coop "$@"
