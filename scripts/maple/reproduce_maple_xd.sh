#!/usr/bin/env bash
# The published name of reproduce_xd.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/reproduce_xd.sh" "$@"
