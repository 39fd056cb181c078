# What every entry sources: `source …/run.sh ENTRY METHOD ARGUMENTS`, or `source …/run.sh sweep ARGUMENTS`.
# Picks the interpreter and starts experiments/entry.py, which turns the arguments into train.py commands.
#
# Environment:
#   DATA     folder of the datasets             (./data)
#   OUTPUT   folder of all runs                 (output)
#   CFG      another config of the trainer      (the published one)
#   SHOTS    training images per class          (16)
#   LOADEP   epoch that a test loads            (the last one trained)
#   SUB      classes of base2new_test           (new)
#   SOURCE   dataset that xd_test's weights were trained on (imagenet)
#   PYTHON   interpreter                        (.venv/bin/python if it exists, else python3)
#   DRY_RUN  1 prints the commands only
#
# A run is finished when its results.json is complete: it is skipped then, and resumed otherwise.
set -euo pipefail

caller=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; fi
elif [[ $PYTHON == */* && $PYTHON != /* && $caller != "$root" ]]; then
    PYTHON=$caller/$PYTHON
fi
export PYTHON
exec "$PYTHON" -m experiments.entry "${0#"$root"/}" "$caller" "$@"
