#!/usr/bin/env bash
# Zero-shot CLIP on all classes of a dataset, with the hand-written prompts (TRAINER=ZeroshotCLIP2: template ensemble).
# Usage: bash scripts/zsclip/zeroshot.sh DATASET [CFG] [KEY VALUE ...]     CFG: vit_b16, vit_b32, rn50, rn101
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" zeroshot zsclip "$@"
