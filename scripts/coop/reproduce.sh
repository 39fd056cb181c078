#!/usr/bin/env bash
# CoOp, test downloaded weights on the base and on the new classes.
# Usage: bash scripts/coop/reproduce.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" reproduce coop "$@"
