#!/usr/bin/env bash
# Language prompting (IVLP without vision prompts), base-to-new, first half: train on the base classes and test on them.
# Usage: bash scripts/language-prompting/base2new_train_lp.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
base2new_train IVLP vit_b16_c2_ep5_batch4_4ctx_language_only "$@"
