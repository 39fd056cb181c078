#!/usr/bin/env bash
# CoOp, few-shot curve: all classes, for every number of shots and seed, with the published number of epochs.
# Usage: bash scripts/coop/few_shot.sh DATASET ["1 2 4 8 16"] ["1 2 3"] [KEY VALUE ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

config_for_shots() {  # CONFIG SHOTS: the CoOp paper trains 50 epochs with 1 shot and on ImageNet, 100 with 2 and 4
    if [[ $2 == 1 || $DATASET == imagenet ]]; then
        echo "$1_ep50"
    elif (($2 <= 4)); then
        echo "$1_ep100"
    else
        echo "$1"
    fi
}

few_shot CoOp vit_b16 "$@"
