#!/usr/bin/env bash
# Language prompting (IVLP without vision prompts), cross-dataset and domain generalization, second half: test the weights of xd_train on another dataset.
# Usage: bash scripts/language-prompting/xd_test_lp.sh DATASET SEED [KEY VALUE ...]
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../run.sh" xd_test language-prompting "$@"
