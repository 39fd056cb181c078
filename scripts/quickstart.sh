#!/usr/bin/env bash
# Creates .venv, trains and tests the methods on the embedded demonstration (emoji pictures and ViT-Micro/8, a tiny CLIP)
# with the same scripts that run ImageNet with ViT-B/16, and prints a table of base / new / harmonic mean.
# Usage: bash scripts/quickstart.sh [SEED ...]     (default: seed 1)
set -euo pipefail
if [[ -n ${OUTPUT:-} && $OUTPUT != /* ]]; then OUTPUT=$PWD/$OUTPUT; fi  # the caller's folder
cd "$(dirname "${BASH_SOURCE[0]}")/.."

METHODS=(zsclip maple coop cocoop)
if (($# == 0)); then set -- 1; fi

bash scripts/setup.sh
export PYTHON=$PWD/.venv/bin/python OUTPUT=${OUTPUT:-output}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # more threads gain a tiny model little and slow a busy machine
for seed in "$@"; do
    for method in "${METHODS[@]}"; do
        echo "== $method, seed $seed"
        bash "scripts/$method/base2new_train.sh" emoji "$seed"
        bash "scripts/$method/base2new_test.sh" emoji "$seed"
    done
done

echo
echo "Demonstration: emoji pictures and ViT-Micro/8, a tiny CLIP trained on drawings. These are not CLIP's numbers."
"$PYTHON" scripts/results.py "$OUTPUT" --protocol base2new --dataset emoji
