#!/usr/bin/env bash
# CoCoOp, cross-dataset and domain generalization, first half: train on all classes of ImageNet (or of DATASET).
# Usage: bash scripts/cocoop/xd_train.sh [DATASET] SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
xd_train CoCoOp vit_b16_c4_ep10_batch1_ctxv1 "$@"
