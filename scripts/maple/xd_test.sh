#!/usr/bin/env bash
# MaPLe, cross-dataset and domain generalization, second half: test the weights of xd_train on another dataset.
# Usage: bash scripts/maple/xd_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" xd_test maple "$@"
