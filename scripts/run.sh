# What every entry sources: `source …/run.sh ENTRY METHOD ARGUMENTS`, or `source …/run.sh sweep ARGUMENTS`.
# Picks the interpreter and starts experiments/, which turns the arguments into train.py commands.
#
# Environment (relative folders start at the caller's, ~ is the home folder):
#   DATA     folder of the datasets             (./data)
#   OUTPUT   folder of all runs                 (output)
#   FEATURES folder of stored image features    (features in OUTPUT)
#   CFG      another config of the trainer      (the published one)
#   SHOTS    training images per class          (16)
#   LOADEP   epoch that a test loads            (the last one trained)
#   SUB      classes of base2new_test           (new; base, all)
#   SOURCE   dataset that xd_test's weights were trained on (imagenet)
#   PYTHON   interpreter                        (.venv/bin/python if it exists, else python3)
#   DRY_RUN  1 prints the commands only
#
# A run is finished when its results.json is complete: it is skipped then, and resumed otherwise. A test takes the
# backbone, the input and the trainer's settings from the training that it tests; KEY VALUE pairs have priority.
# Ctrl-C, SIGTERM and SIGHUP end the current run and start no other: status 130, 143, 129.
set -euo pipefail

caller=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; fi
elif [[ $PYTHON == */* && $PYTHON != /* && $caller != "$root" ]]; then
    PYTHON=$caller/$PYTHON
fi
export PYTHON
if ! command -v "$PYTHON" >/dev/null; then
    echo "error: there is no '$PYTHON'. Run 'bash scripts/setup.sh', or select an interpreter: PYTHON=python3.12" >&2
    exit 2
fi
exec "$PYTHON" -m experiments.start "${0#"$root"/}" "$caller" "$@"
