#!/usr/bin/env bash
# Runs linter, format check, type checker and tests in .venv, which is created if it is missing.
# Usage: bash scripts/test.sh [PYTEST ARGUMENT ...]     e.g. bash scripts/test.sh tests/test_scripts.py -x
#   bash scripts/test.sh -m "not slow" leaves out the tests that train or start many processes.
#   Two processes run the files of tests side by side; -n 0 runs them in one, as for --pdb.
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
source scripts/run_child.sh
run_child bash scripts/setup.sh
run_child .venv/bin/python -m ruff check .
run_child .venv/bin/python -m ruff format --check .
run_child .venv/bin/python -m mypy
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
