#!/usr/bin/env bash
# Language prompting (IVLP without vision prompts), base-to-new, second half: test the trained weights on the new classes (SUB=base: on the base classes).
# Usage: bash scripts/language-prompting/base2new_test_lp.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh" base2new_test language-prompting "$@"
