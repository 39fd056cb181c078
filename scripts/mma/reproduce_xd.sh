#!/usr/bin/env bash
# MMA, test downloaded weights, trained on ImageNet, on another dataset.
# Usage: bash scripts/mma/reproduce_xd.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" reproduce_xd mma "$@"
