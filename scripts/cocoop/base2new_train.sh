#!/usr/bin/env bash
# CoCoOp, base-to-new, first half: train on the base classes and test on them.
# Usage: bash scripts/cocoop/base2new_train.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
base2new_train CoCoOp vit_b16_c4_ep10_batch1_ctxv1 "$@"
