#!/usr/bin/env bash
# Zero-shot CLIP on the base classes, in the folder where the trained methods have theirs (nothing is trained).
# Usage: bash scripts/zsclip/base2new_train.sh DATASET SEED [KEY VALUE ...]     TRAINER=ZeroshotCLIP2: template ensemble
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
base2new_zero_shot train_base base "${TRAINER:-ZeroshotCLIP}" vit_b16 "$@"
