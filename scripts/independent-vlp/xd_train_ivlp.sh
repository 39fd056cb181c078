#!/usr/bin/env bash
# IVLP, cross-dataset and domain generalization, first half: train on all classes of ImageNet (or of DATASET).
# Usage: bash scripts/independent-vlp/xd_train_ivlp.sh [DATASET] SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
xd_train IVLP vit_b16_c2_ep5_batch4_2+2ctx "$@"
