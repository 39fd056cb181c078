#!/usr/bin/env bash
# The published name of xd_test.sh.
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
exec bash "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/xd_test.sh" "$@"
