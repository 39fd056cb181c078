#!/usr/bin/env bash
# A protocol over datasets and seeds, one run after the other; the failed ones are listed at the end.
# Usage: bash scripts/sweep.sh METHOD PROTOCOL "DATASET ..." "SEED ..." [KEY VALUE ...]
#   e.g. bash scripts/sweep.sh maple base2new "caltech101 dtd eurosat" "1 2 3"
#   METHOD is a folder in scripts/; PROTOCOL is base2new (train, then test) or one of its entries, such as xd_test.
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/run.sh" sweep "$@"
