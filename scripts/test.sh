#!/usr/bin/env bash
# Runs linter, format check, type checker and tests in .venv, which is created if it is missing.
# Usage: bash scripts/test.sh [PYTEST ARGUMENT ...]     e.g. bash scripts/test.sh tests/test_scripts.py -x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
.venv/bin/python -m pytest "$@"
