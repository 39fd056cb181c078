#!/usr/bin/env bash
# IVLP, base-to-new, first half: train on the base classes and test on them.
# Usage: bash scripts/independent-vlp/base2new_train_ivlp.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" base2new_train independent-vlp "$@"
