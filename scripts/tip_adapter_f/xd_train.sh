#!/usr/bin/env bash
# Tip-Adapter-F, domain generalization, first half: train on all classes of ImageNet (or of DATASET).
# Usage: bash scripts/tip_adapter_f/xd_train.sh [DATASET] SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_train tip_adapter_f "$@"
