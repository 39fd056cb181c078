#!/usr/bin/env bash
# Zero-shot CLIP on the new classes, in the folder where the trained methods have theirs (nothing is trained).
# Usage: bash scripts/zsclip/base2new_test.sh DATASET SEED [KEY VALUE ...]     TRAINER=ZeroshotCLIP2: template ensemble
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
base2new_zero_shot test_new new "${TRAINER:-ZeroshotCLIP}" vit_b16 "$@"
