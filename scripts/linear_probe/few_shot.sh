#!/usr/bin/env bash
# Linear probe, few-shot curve: all classes, for every number of shots and seed.
# Usage: bash scripts/linear_probe/few_shot.sh DATASET ["1 2 4 8 16"] ["1 2 3"] [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" few_shot linear_probe "$@"
