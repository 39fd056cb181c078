#!/usr/bin/env bash
# Tip-Adapter, domain generalization, second half: test the weights of xd_train on a variant of ImageNet.
# Usage: bash scripts/tip_adapter/xd_test.sh DATASET SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_test tip_adapter "$@"
