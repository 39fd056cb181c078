#!/usr/bin/env bash
# Makes .venv and installs requirements.txt into it; does nothing when that is already so.
# Usage: bash scripts/setup.sh     PYTHON=python3.12 picks the interpreter that the environment is made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

base=${PYTHON:-python3}
installed=.venv/requirements.installed   # a copy of the requirements that the last finished install read

if [[ -f $installed ]] && cmp -s requirements.txt "$installed" && .venv/bin/python -c 'pass' 2>/dev/null; then
    exit 0
fi
if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: Python 3.10 or newer is needed, and '$base' is not one. Name another: PYTHON=python3.12 bash scripts/setup.sh" >&2
    exit 2
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "Making .venv with $("$base" --version)"
    if ! "$base" -m venv --clear .venv; then
        echo "error: '$base' cannot make a virtual environment. Install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2
        exit 2
    fi
fi
echo "Installing requirements.txt into .venv (PyTorch is large: some minutes)"
rm -f "$installed"
.venv/bin/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
cp requirements.txt "$installed"
