#!/usr/bin/env bash
# MaPLe, test downloaded weights, trained on ImageNet, on another dataset.
# Usage: bash scripts/maple/reproduce_xd.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
reproduce_xd MaPLe vit_b16_c2_ep5_batch4_2ctx_cross_datasets "$@"
