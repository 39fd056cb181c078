#!/usr/bin/env bash
# IVLP, base-to-new, first half: train on the base classes and test on them.
# Usage: bash scripts/independent-vlp/base2new_train_ivlp.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
base2new_train IVLP vit_b16_c2_ep5_batch4_2+2ctx "$@"
