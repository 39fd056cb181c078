#!/usr/bin/env bash
# Creates .venv and installs requirements.txt into it. Does nothing if both are already done.
# Usage: bash scripts/setup.sh     PYTHON=python3.12 selects the interpreter that .venv is created with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

base=${PYTHON:-python3}
installed=.venv/requirements.installed   # copy of the requirements of the last complete installation

if [[ -f $installed ]] && cmp -s requirements.txt "$installed" && .venv/bin/python -c 'pass' 2>/dev/null; then
    exit 0
fi
if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: Python 3.10 or newer is needed, and '$base' is not. Select another: PYTHON=python3.12 bash scripts/setup.sh" >&2
    exit 2
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "Creating .venv with $("$base" --version)"
    if ! "$base" -m venv --clear .venv; then
        echo "error: '$base' cannot create a virtual environment. Install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2
        exit 2
    fi
fi
echo "Installing requirements.txt into .venv (PyTorch is large: this takes some minutes)"
rm -f "$installed"
.venv/bin/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
cp requirements.txt "$installed"
