#!/usr/bin/env bash
# The published name of xd_train.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/xd_train.sh" "$@"
