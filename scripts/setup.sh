#!/usr/bin/env bash
# Creates .venv and installs requirements.txt into it. Does nothing if both are already done.
# Usage: bash scripts/setup.sh     PYTHON=python3.12 selects the interpreter that .venv is created with.
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
source scripts/run_child.sh

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
    if ! run_child "$base" -m venv --clear .venv; then
        echo "error: '$base' cannot create a virtual environment in $PWD/.venv. If its venv module is missing, install it (Debian, Ubuntu: apt install python3-venv)." >&2
        exit 2
    fi
fi
echo "Installing $(grep -c '^[^#]' requirements.txt) packages into .venv (PyTorch is large: this takes some minutes)"
rm -f "$installed"
status=0
run_child .venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt || status=$?
if ((status)); then
    echo "error: pip failed, see above. The same command tries again and keeps what is installed." >&2
    exit "$status"
fi
cp requirements.txt "$installed"
echo "Installed: .venv is ready"
