#!/usr/bin/env bash
# CLIP-Adapter, cross-dataset and domain generalization, first half: train on all classes of ImageNet (or of DATASET).
# Usage: bash scripts/clip_adapter/xd_train.sh [DATASET] SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_train clip_adapter "$@"
