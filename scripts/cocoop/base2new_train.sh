#!/usr/bin/env bash
# CoCoOp, base-to-new, first half: train on the base classes and test on them.
# Usage: bash scripts/cocoop/base2new_train.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" base2new_train cocoop "$@"
