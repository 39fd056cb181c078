#!/usr/bin/env bash
# A protocol over datasets and seeds, one run after the other; what failed is named at the end.
# Usage: bash scripts/sweep.sh METHOD PROTOCOL "DATASET ..." "SEED ..." [KEY VALUE ...]
#   e.g. bash scripts/sweep.sh maple base2new "caltech101 dtd eurosat" "1 2 3"
#   METHOD is a folder in scripts/; PROTOCOL is base2new (train, then test) or one of its entries, such as xd_test.
set -euo pipefail
for folder in DATA OUTPUT; do  # relative ones are the caller's
    if [[ -n ${!folder:-} && ${!folder} != /* ]]; then export "$folder=$PWD/${!folder}"; fi
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# < 4)); then
    echo 'usage: bash scripts/sweep.sh METHOD PROTOCOL "DATASET ..." "SEED ..." [KEY VALUE ...]' >&2
    exit 2
fi
method=$1 protocol=$2 datasets=$3 seeds=$4
shift 4
entries=("$protocol")
if [[ $protocol == base2new ]]; then entries=(base2new_train base2new_test); fi

failed=()
for dataset in $datasets; do
    for seed in $seeds; do
        for entry in "${entries[@]}"; do
            script=scripts/$method/$entry.sh
            for named in "scripts/$method/$entry"_{vpt,ivlp,lp}.sh; do
                if [[ -f $named ]]; then script=$named; fi
            done
            if [[ ! -f $script ]]; then
                echo "error: no $script. There are: $(cd "scripts/$method" 2>/dev/null && echo *.sh)" >&2
                exit 2
            fi
            bash "$script" "$dataset" "$seed" "$@" || failed+=("$script $dataset $seed")
        done
    done
done
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
