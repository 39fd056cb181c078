#!/usr/bin/env bash
# Language prompting (IVLP without vision prompts), test downloaded weights, trained on ImageNet, on another dataset.
# Usage: bash scripts/language-prompting/reproduce_lp_xd.sh DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
reproduce_xd IVLP vit_b16_c2_ep5_batch4_4ctx_language_only "$@"
