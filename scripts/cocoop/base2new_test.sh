#!/usr/bin/env bash
# CoCoOp, base-to-new, second half: test the trained weights on the new classes (SUB=base: on the base classes).
# Usage: bash scripts/cocoop/base2new_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
base2new_test CoCoOp vit_b16_c4_ep10_batch1_ctxv1 "$@"
