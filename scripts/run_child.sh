# Sourced by scripts that run long commands one after the other: `run_child COMMAND ARGUMENT ...` runs one to its end.
# Ctrl-C, SIGTERM and SIGHUP end it together with the script, even if only the script receives the signal.
set -euo pipefail

run_child() {
    set -m  # a process group of its own, so that its children end with it
    INSIDE_SCRIPT=1 "$@" </dev/null &
    set +m
    local child=$! status=0
    trap "end_child $child INT 130" INT
    trap "end_child $child TERM 143" TERM
    trap "end_child $child HUP 129" HUP
    wait "$child" || status=$?
    trap - INT TERM HUP
    return "$status"
}

end_child() {
    trap '' INT TERM HUP
    kill -s TERM -- "-$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    if [[ -z ${INSIDE_SCRIPT:-} ]]; then echo "stopped by SIG$2: the same command starts again" >&2; fi
    exit "$3"
}
