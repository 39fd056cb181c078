#!/usr/bin/env bash
# Linear probe, domain generalization, second half: test the weights of xd_train on a variant of ImageNet.
# Usage: bash scripts/linear_probe/xd_test.sh DATASET SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_test linear_probe "$@"
