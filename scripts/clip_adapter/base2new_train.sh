#!/usr/bin/env bash
# CLIP-Adapter, base-to-new, first half: train on the base classes and test on them.
# Usage: bash scripts/clip_adapter/base2new_train.sh DATASET SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" base2new_train clip_adapter "$@"
