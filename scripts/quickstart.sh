#!/usr/bin/env bash
# Creates .venv, trains and tests the methods on the embedded demonstration (emoji pictures and ViT-Micro/8, a tiny CLIP)
# with the same entries that run ImageNet with ViT-B/16, and prints a table of base / new / harmonic mean.
# Usage: bash scripts/quickstart.sh [SEED ...]     (default: seed 1)
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source "$here/run_child.sh"

run_child bash "$here/setup.sh"
export PYTHON=${here%/*}/.venv/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # more threads gain a tiny model little and slow a busy machine
source "$here/run.sh" quickstart "$@"
