#!/usr/bin/env bash
# Linear probe, domain generalization, first half: train on all classes of ImageNet.
# Usage: bash scripts/linear_probe/xd_train.sh [DATASET] SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_train linear_probe "$@"
