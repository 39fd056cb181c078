#!/usr/bin/env bash
# The published name of reproduce.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh" "$@"
