#!/usr/bin/env bash
# MMA, test downloaded weights on the base and on the new classes.
# Usage: bash scripts/mma/reproduce.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" reproduce mma "$@"
