#!/usr/bin/env bash
# CoOp as its paper runs it: all classes, seeds 1 2 3 (or SEEDS).
#   CTP   position of the class token: end, middle, front
#   NCTX  number of context tokens
#   CSC   class-specific contexts: True, False
# Usage: bash scripts/coop/main.sh DATASET CFG CTP NCTX SHOTS CSC [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

if (($# < 6)) || ! is_number "$4" || ! is_number "$5"; then usage "DATASET CFG CTP NCTX SHOTS CSC"; fi
CFG=$2
VARIANT=nctx$4_csc$6_ctp$3
few_shot CoOp "$2" "$1" "$5" "${SEEDS:-1 2 3}" \
    TRAINER.COOP.N_CTX "$4" TRAINER.COOP.CSC "$6" TRAINER.COOP.CLASS_TOKEN_POSITION "$3" "${@:7}"
