#!/usr/bin/env bash
# The published name of xd_test.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/xd_test.sh" "$@"
