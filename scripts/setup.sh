#!/usr/bin/env bash
# Creates .venv and installs requirements.txt into it. Does nothing if both are already done.
# Usage: bash scripts/setup.sh [ray] [slurm] [onnx]     PYTHON=python3.12 selects the interpreter that .venv is created with.
#   Each word also installs requirements-<word>.txt, which a launcher of plans or the export to ONNX needs.
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
source scripts/run_child.sh

base=${PYTHON:-python3}
wanted=(requirements)
for extra in "$@"; do
    if [[ ! -f requirements-$extra.txt ]]; then
        echo "error: there is no requirements-$extra.txt. Usage: bash scripts/setup.sh [ray] [slurm] [onnx]" >&2
        exit 2
    fi
    wanted+=("requirements-$extra")
done

# .venv/<name>.installed is a copy of <name>.txt as of its last complete installation
missing=()
for name in "${wanted[@]}"; do
    cmp -s "$name.txt" ".venv/$name.installed" || missing+=("$name")
done
if [[ ${#missing[@]} == 0 ]] && .venv/bin/python -c 'pass' 2>/dev/null; then
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
files=("${wanted[@]/%/.txt}")
echo "Installing $(cat "${files[@]}" | grep -c '^[^#]') packages into .venv (PyTorch is large: this takes some minutes)"
for name in ${missing[@]+"${missing[@]}"}; do rm -f ".venv/$name.installed"; done
status=0
run_child .venv/bin/python -m pip install --disable-pip-version-check "${files[@]/#/--requirement=}" || status=$?
if ((status)); then
    echo "error: pip failed, see above. The same command tries again and keeps what is installed." >&2
    exit "$status"
fi
for name in "${wanted[@]}"; do cp "$name.txt" ".venv/$name.installed"; done
echo "Installed: .venv is ready"
