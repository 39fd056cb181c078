#!/usr/bin/env bash
# CLAP, domain generalization, first half: train on all classes of ImageNet.
# Usage: bash scripts/clap/xd_train.sh [DATASET] SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_train clap "$@"
