#!/usr/bin/env bash
# Zero-shot CLIP on the new classes (nothing is trained), in the same folders as the trained methods.
# Usage: bash scripts/zsclip/base2new_test.sh DATASET SEED [KEY VALUE ...]     TRAINER=ZeroshotCLIP2: template ensemble
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" base2new_test zsclip "$@"
