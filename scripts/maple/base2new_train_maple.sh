#!/usr/bin/env bash
# The published name of base2new_train.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/base2new_train.sh" "$@"
