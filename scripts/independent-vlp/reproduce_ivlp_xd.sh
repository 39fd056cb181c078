#!/usr/bin/env bash
# IVLP, test downloaded weights, trained on ImageNet, on another dataset.
# Usage: bash scripts/independent-vlp/reproduce_ivlp_xd.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
reproduce_xd IVLP vit_b16_c2_ep5_batch4_2+2ctx "$@"
