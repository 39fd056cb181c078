#!/usr/bin/env bash
# The published name of base2new_test.sh.
[ -n "${BASH_VERSION:-}" ] || exec /usr/bin/env bash "$0" "$@"
set -euo pipefail
exec bash "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/base2new_test.sh" "$@"
