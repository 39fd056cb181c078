# The field's protocols, one function each. The entries in scripts/<method>/ source this file and call
#     <protocol> TRAINER CONFIG "$@"
# where CONFIG is the method's published default in configs/trainers/TRAINER/.
#
# Environment:
#   DATA     folder of the datasets             (./data)
#   OUTPUT   folder of all runs                 (output)
#   CFG      another config of the trainer      (the entry's)
#   SHOTS    training images per class          (16)
#   LOADEP   epoch that a test loads            (the last one trained)
#   SUB      classes of base2new_test           (new)
#   SOURCE   dataset that xd_test's weights saw (imagenet)
#   PYTHON   interpreter                        (.venv/bin/python if it exists, else python3)
#   DRY_RUN  1 prints the commands only
#
# A run is done when its results.json is complete: it is skipped then, and taken up where it stopped otherwise.
set -euo pipefail

CALLER=$PWD
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ENTRY=${0#"$ROOT"/}
cd "$ROOT"

from_caller() {  # PATH: what a path given by the caller is called from the repository's root
    if [[ $1 == /* || $CALLER == "$ROOT" ]]; then echo "$1"; else echo "$CALLER/$1"; fi
}

if [[ -n ${DATA:-} ]]; then DATA=$(from_caller "$DATA"); else DATA=./data; fi
if [[ -n ${OUTPUT:-} ]]; then OUTPUT=$(from_caller "$OUTPUT"); else OUTPUT=output; fi
if [[ ${PYTHON:-} == */* ]]; then
    PYTHON=$(from_caller "$PYTHON")
elif [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; fi
fi
SHOTS=${SHOTS:-16}
SEED=""
VARIANT=""      # a subfolder between config and run, as CoOp's main.sh has it
OPTIONS=()      # the caller's KEY VALUE pairs

die() {
    echo "error: $1" >&2
    exit 2
}

usage() {  # ARGUMENTS
    echo "usage: bash $ENTRY $1 [KEY VALUE ...]     (DRY_RUN=1 prints the commands; scripts/lib.sh lists the settings)" >&2
    exit 2
}

is_number() { [[ $1 =~ ^[0-9]+$ ]]; }
is_numbers() { [[ $1 =~ ^[0-9]+([ ,]+[0-9]+)*$ ]]; }

# ---- arguments ------------------------------------------------------------------------------------------------

set_dataset() {
    local file
    DATASET=$1
    if [[ ! -f configs/datasets/$DATASET.yaml ]]; then
        echo "error: no dataset '$DATASET': there is no configs/datasets/$DATASET.yaml. There are:" >&2
        for file in configs/datasets/*.yaml; do file=${file##*/}; echo "  ${file%.yaml}"; done >&2
        exit 2
    fi
}

set_options() {
    (($# % 2 == 0)) || die "options come as pairs KEY VALUE, but there are $#: $*"
    OPTIONS=("$@")
}

set_dataset_seed() {  # DATASET SEED [KEY VALUE ...]
    if (($# == 0)); then
        echo "No dataset given: the embedded demonstration, $ENTRY emoji 1"
        set -- emoji 1
    fi
    if (($# < 2)) || ! is_number "$2"; then usage "DATASET SEED"; fi
    set_dataset "$1"
    SEED=$2
    set_options "${@:3}"
}

set_config() {  # TRAINER CONFIG [DATASET THAT IS TRAINED ON]: the embedded demonstration has configs of its own
    local default=$2
    TRAINER=$1
    if [[ ${3:-$DATASET} == emoji ]]; then
        default=vit_micro
        if [[ $2 == *language_only ]]; then default=vit_micro_language_only; fi
    fi
    CONFIG=${CFG:-$default}
    CONFIG_FILE=configs/trainers/$TRAINER/$CONFIG.yaml
    [[ -f $CONFIG_FILE ]] || die "no config '$CONFIG' of $TRAINER: there is no $CONFIG_FILE"
}

# ---- one run --------------------------------------------------------------------------------------------------

run() {  # FOLDER [FLAG ...] -- [KEY VALUE ...]
    local folder=$1 state command check options
    shift
    command=("$PYTHON" train.py --root "$DATA" --trainer "$TRAINER" --dataset-config-file "configs/datasets/$DATASET.yaml"
        --config-file "$CONFIG_FILE" --output-dir "$folder")
    if [[ -n $SEED ]]; then command+=(--seed "$SEED"); fi
    check=(--config "configs/datasets/$DATASET.yaml" --config "$CONFIG_FILE")
    while [[ $1 != -- ]]; do
        command+=("$1")
        if [[ $1 == --load-epoch ]]; then check+=(--epoch "$2"); fi
        shift
    done
    shift
    options=("$@" ${OPTIONS[@]+"${OPTIONS[@]}"})
    case $DATASET in  # their folders do not tell whose images they are of: a finished run of others' is an error
        image_folder | split_file) options+=(DATASET.ROOT "$DATA") ;;
    esac
    command+=(${options[@]+"${options[@]}"})

    if [[ -n ${AGAIN:-} ]]; then
        state=new
    else
        state=$("$PYTHON" scripts/run_state.py "${check[@]}" "$folder" ${options[@]+"${options[@]}"})
    fi
    if [[ $state == finished* ]]; then
        echo "Finished already, skipped: $folder (${state#finished, })"
    elif [[ ${DRY_RUN:-} == 1 ]]; then
        printf '%q ' "${command[@]}"
        echo
    else
        if [[ $state == unfinished ]]; then echo "Unfinished, taken up again: $folder"; fi
        "${command[@]}"
    fi
}

run_trained() {  # FOLDER TRAINING_FOLDER [KEY VALUE ...]: test the weights of a training run
    local folder=$1 training=$2 state epoch AGAIN=""
    shift 2
    state=$("$PYTHON" scripts/run_state.py "$training")
    if [[ $state != finished* && ${DRY_RUN:-} != 1 ]]; then
        die "no finished training in $training: run ${ENTRY/test/train} with the same arguments first"
    fi
    if [[ $training/results.json -nt $folder/results.json ]]; then
        AGAIN=1  # no test yet, or one of weights that a later training replaced
    fi
    epoch=${LOADEP:-$(last_epoch "$training/config.yaml" "$CONFIG_FILE")}
    run "$folder" --model-dir "$training" ${epoch:+--load-epoch "$epoch"} --eval-only -- "$@"
}

last_epoch() {  # CONFIG_FILE ...: MAX_EPOCH of the first file that exists; nothing if the best epoch is the final model
    local file
    for file in "$@"; do
        if [[ -f $file ]]; then
            grep -q 'FINAL_MODEL: *.\{0,1\}best_val' "$file" || sed -n 's/^ *MAX_EPOCH: *\([0-9]*\).*/\1/p' "$file"
            return
        fi
    done
}

# ---- protocols ------------------------------------------------------------------------------------------------

base2new_folder() { echo "$OUTPUT/base2new/$1/$DATASET/shots_$SHOTS/$TRAINER/$CONFIG/seed$SEED"; }

base2new_train() {  # TRAINER CONFIG DATASET SEED: train on the base classes, test on them
    set_dataset_seed "${@:3}"
    set_config "$1" "$2"
    run "$(base2new_folder train_base)" -- DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES base
}

base2new_test() {  # TRAINER CONFIG DATASET SEED: test the same weights on the new classes (SUB=base: on the base ones)
    local sub=${SUB:-new}
    set_dataset_seed "${@:3}"
    set_config "$1" "$2"
    run_trained "$(base2new_folder "test_$sub")" "$(base2new_folder train_base)" \
        DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$sub"
}

base2new_zero_shot() {  # FOLDER CLASSES TRAINER CONFIG DATASET SEED: nothing is trained; folders as the others have them
    set_dataset_seed "${@:5}"
    set_config "$3" "$4"
    run "$(base2new_folder "$1")" --eval-only -- DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$2"
}

all_classes_folder() {  # DATASET
    echo "$OUTPUT/$1/$TRAINER/${CONFIG}_${SHOTS}shots${VARIANT:+/$VARIANT}/seed$SEED"
}

evaluation_folder() {
    echo "$OUTPUT/evaluation${FROM:-}/$TRAINER/${CONFIG}_${SHOTS}shots${VARIANT:+/$VARIANT}/$DATASET/seed$SEED"
}

xd_train() {  # TRAINER CONFIG [DATASET] SEED: train on all classes of the source, ImageNet unless another is named
    if (($# >= 3)) && is_number "$3"; then set -- "$1" "$2" imagenet "${@:3}"; fi
    set_dataset_seed "${@:3}"
    set_config "$1" "$2"
    run "$(all_classes_folder "$DATASET")" -- DATASET.NUM_SHOTS "$SHOTS"
}

xd_test() {  # TRAINER CONFIG DATASET SEED: test weights trained on SOURCE (imagenet) on another dataset
    local source=${SOURCE:-imagenet} protocol FROM=""
    set_dataset_seed "${@:3}"
    set_config "$1" "$2" "$source"
    protocol=$(transfer_protocol)
    if [[ $source != imagenet ]]; then FROM=_$source; fi
    run_trained "$(evaluation_folder)" "$(all_classes_folder "$source")" PROTOCOL "$protocol"
}

transfer_protocol() {
    case $DATASET in
        imagenetv2 | imagenet_sketch | imagenet_a | imagenet_r) echo domain_generalization ;;
        *) echo cross_dataset ;;
    esac
}

# CONFIG SHOTS: an entry whose config depends on the shots defines this anew
config_for_shots() { echo "$1"; }

few_shot() {  # TRAINER CONFIG DATASET [SHOTS] [SEEDS]: all classes; "1 2 4 8 16" and "1 2 3" are lists and the defaults
    local trainer=$1 config=$2 shots_list="1 2 4 8 16" seeds="1 2 3"
    shift 2
    if (($# == 0)); then usage "DATASET [\"SHOTS ...\"] [\"SEED ...\"]"; fi
    set_dataset "$1"
    shift
    if (($# > 0)) && is_numbers "$1"; then shots_list=$1; shift; fi
    if (($# > 0)) && is_numbers "$1"; then seeds=$1; shift; fi
    set_options "$@"
    for SHOTS in ${shots_list//,/ }; do
        set_config "$trainer" "$(config_for_shots "$config" "$SHOTS")"
        for SEED in ${seeds//,/ }; do
            run "$(all_classes_folder "$DATASET")" -- DATASET.NUM_SHOTS "$SHOTS"
        done
    done
}

zero_shot() {  # TRAINER CONFIG DATASET [CONFIG]
    local trainer=$1 config=$2
    shift 2
    if (($# == 0)); then usage "DATASET [CONFIG]"; fi
    set_dataset "$1"
    shift
    if (($# % 2 == 1)); then CFG=$1; shift; fi
    set_options "$@"
    set_config "$trainer" "$config"
    run "$OUTPUT/$TRAINER/$CONFIG/$DATASET" --eval-only -- PROTOCOL zero_shot
}

# ---- published weights ----------------------------------------------------------------------------------------

find_weights() {  # FOLDER: where below it the published layouts keep the weights of DATASET and SEED
    local candidate file
    for candidate in "$1/seed$SEED" "$1/base/seed$SEED" "$1/$DATASET/base/seed$SEED" "$1/$DATASET/seed$SEED" "$1"; do
        for file in "$candidate"/*/model*.pth.tar*; do
            if [[ -f $file ]]; then echo "$candidate"; return; fi
        done
    done
    [[ ${DRY_RUN:-} == 1 ]] || die "no weights for $DATASET, seed $SEED: neither in $1 nor in its seed$SEED, base/seed$SEED, $DATASET/base/seed$SEED or $DATASET/seed$SEED is there a <model name>/model.pth.tar-<epoch>"
    echo "$1/seed$SEED"
}

set_weights() {  # TRAINER CONFIG DATASET SEED WEIGHTS_FOLDER [KEY VALUE ...]
    if (($# < 5)); then usage "DATASET SEED WEIGHTS_FOLDER"; fi
    set_dataset_seed "$3" "$4" "${@:6}"
    set_config "$1" "$2"
    WEIGHTS=$(find_weights "$(from_caller "$5")")
    EPOCH=${LOADEP:-$(last_epoch "$CONFIG_FILE")}
    OUTPUT=$OUTPUT/reproduce
    AGAIN=1  # the folder cannot tell which weights it was made from: always tested anew
}

reproduce() {  # TRAINER CONFIG DATASET SEED WEIGHTS_FOLDER: test downloaded weights on base and on new classes
    local sub
    set_weights "$@"
    for sub in base new; do
        run "$(base2new_folder "test_$sub")" --model-dir "$WEIGHTS" ${EPOCH:+--load-epoch "$EPOCH"} --eval-only -- \
            DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$sub"
    done
}

reproduce_xd() {  # TRAINER CONFIG DATASET SEED WEIGHTS_FOLDER: test downloaded weights on another dataset
    set_weights "$@"
    run "$(evaluation_folder)" --model-dir "$WEIGHTS" ${EPOCH:+--load-epoch "$EPOCH"} \
        --eval-only -- PROTOCOL "$(transfer_protocol)"
}
