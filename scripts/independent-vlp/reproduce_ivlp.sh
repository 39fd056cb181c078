#!/usr/bin/env bash
# IVLP, test downloaded weights on the base and on the new classes.
# Usage: bash scripts/independent-vlp/reproduce_ivlp.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" reproduce independent-vlp "$@"
