#!/usr/bin/env bash
# CLIP-LoRA, test downloaded weights, trained on ImageNet, on another dataset.
# Usage: bash scripts/clip_lora/reproduce_xd.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" reproduce_xd clip_lora "$@"
