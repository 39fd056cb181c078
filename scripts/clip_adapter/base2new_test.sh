#!/usr/bin/env bash
# CLIP-Adapter, base-to-new, second half: test the trained weights on the new classes (SUB=base: on the base classes).
# Usage: bash scripts/clip_adapter/base2new_test.sh DATASET SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" base2new_test clip_adapter "$@"
