#!/usr/bin/env bash
# MaPLe, cross-dataset and domain generalization, first half: train on all classes of ImageNet (or of DATASET).
# Usage: bash scripts/maple/xd_train.sh [DATASET] SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" xd_train maple "$@"
