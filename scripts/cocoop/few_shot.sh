#!/usr/bin/env bash
# CoCoOp, few-shot curve: all classes, for every number of shots and seed.
# Usage: bash scripts/cocoop/few_shot.sh DATASET ["1 2 4 8 16"] ["1 2 3"] [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
few_shot CoCoOp vit_b16_c4_ep10_batch1_ctxv1 "$@"
