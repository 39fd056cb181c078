#!/usr/bin/env bash
# CoOp, weights of main.sh (imagenet CFG end 16 16 False, or NCTX and SHOTS) tested on another dataset, seeds 1 2 3
# (or SEEDS).
# Usage: bash scripts/coop/eval.sh DATASET CFG [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

if (($# < 2)); then usage "DATASET CFG"; fi
CFG=$2
n_ctx=${NCTX:-16}
VARIANT=nctx${n_ctx}_cscFalse_ctpend
for seed in ${SEEDS:-1 2 3}; do
    xd_test CoOp "$2" "$1" "$seed" \
        TRAINER.COOP.N_CTX "$n_ctx" TRAINER.COOP.CSC False TRAINER.COOP.CLASS_TOKEN_POSITION end "${@:3}"
done
