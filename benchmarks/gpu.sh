#!/usr/bin/env bash
# Measures all that is to be measured on a GPU, within a time limit, in parts that do not depend on each other.
# Usage: bash benchmarks/gpu.sh OUT [PART ...]     parts: imagenet step loading graphs tests methods; all by default
# Writes JSON files, log.txt and summary.txt into the folder OUT. A part that is stopped leaves what it has measured.
#   LIMIT    seconds for all parts together (570)
#   PYTHON   the interpreter (.venv's if there is one, else python3)
#   WHEELS   folder of wheels to use besides the installed packages, for a machine without network
#   TRY      1 runs the parts with tiny models, also without a GPU
#   DRY_RUN  1 prints the commands only
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail

mkdir -p "${1:?"usage: bash benchmarks/gpu.sh OUT [PART ...]"}"
out=$(readlink -f "$1")
wheels=${WHEELS:+$(readlink -f "$WHEELS")}
shift
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
parts="imagenet step loading graphs tests methods"
for word in "$@"; do
    if [[ " $parts " != *" $word "* ]]; then
        echo "error: there is no part $word, expected some of $parts" >&2
        exit 2
    fi
done
chosen=" ${*:-$parts} "
python=python3
if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
python=${PYTHON:-$python}
limit=${LIMIT:-570}
failed=0

note() { echo "$*" | tee -a "$out/summary.txt"; }

part() { # NAME SECONDS COMMAND ...
    local name=$1 most=$2 start=$SECONDS status=0
    shift 2
    if [[ $chosen != *" $name "* ]]; then return; fi
    if [[ ${DRY_RUN:-} == 1 ]]; then
        printf '%q ' "$@"
        echo
        return
    fi
    if ((most > limit - SECONDS)); then most=$((limit - SECONDS)); fi
    if ((most > 0)); then
        timeout --kill-after=5 "$most" "$@" </dev/null >>"$out/log.txt" 2>&1 || status=$?
        note "$name: exit status $status after $((SECONDS - start)) s of at most $most: $*"
    else
        status=124
        note "$name: no time left"
    fi
    if ((status)); then failed=1; fi
}

if [[ $wheels ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi

if [[ ${TRY:-} == 1 ]]; then
    run=(--classes 4 --shots 2 --val 2 --pictures 2 --size 64x48 --workers 0 --backbone ViT-Micro/8)
    brief=("${run[@]}" INPUT.SIZE "(48, 48)")
    whole=("${brief[@]}")
    step=(--backbone ViT-Micro/8 --batch 2 --classes 3,4 --repeats 1)
    ours=(--trainer coop,kgcoop)
    both=(--prec fp32,bf16 --test-batch 2 --eval-batches 1 TRAINER.MAPLE.PROMPT_DEPTH 4)
    loading=(--images 8 --size 64x48 --repeats 1)
    tests=(tests/benchmarks/test_loading.py)
else
    whole=()
    brief=(--shots 4 --val 1)
    step=(--classes 50,200,500,1000 --repeats 20)
    ours=(--trainer all)
    both=(--prec fp16,fp32,bf16,amp --definitional-repeats 3 --eval-batches 3)
    loading=(--images 2048 --repeats 2 --workers "8,$(nproc)")
    tests=(-n "$(nproc)" --dist loadfile)
    if [[ ${DRY_RUN:-} != 1 ]]; then
        "$python" -c 'import torch; torch.cuda.is_available() or exit("error: PyTorch finds no GPU; TRY=1 needs none")'
    fi
fi

imagenet=("$python" -m benchmarks.imagenet_run)
part imagenet 240 "${imagenet[@]}" --json "$out/imagenet.json" ${whole[@]+"${whole[@]}"}
part step 150 "$python" -m benchmarks.step --json "$out/step.json" "${step[@]}" "${both[@]}"
part loading 90 "$python" -m benchmarks.loading --json "$out/loading.json" "${loading[@]}"
part graphs 60 "${imagenet[@]}" --json "$out/eager.json" "${brief[@]}" TRAIN.CUDA_GRAPH off
part graphs 60 "${imagenet[@]}" --json "$out/graphs.json" "${brief[@]}" TRAIN.CUDA_GRAPH auto
part tests 240 "$python" -m pytest -p no:cacheprovider "${tests[@]}"
part methods 300 "$python" -m benchmarks.step --json "$out/methods.json" "${step[@]}" "${ours[@]}" --prec fp16 \
    --definitional-repeats 0 --test-batch 0 --eval-batches 0
exit "$failed"
