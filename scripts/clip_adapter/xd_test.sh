#!/usr/bin/env bash
# CLIP-Adapter, cross-dataset and domain generalization, second half: test the weights of xd_train on another dataset.
# Usage: bash scripts/clip_adapter/xd_test.sh DATASET SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_test clip_adapter "$@"
