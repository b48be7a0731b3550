# Sourced by scripts that need a node of their own: start_node and stop_node. Expects $flotilla, the path of the binary.
# Sets $node_dir (removed at the end, with everything in it), $node_pid and FLOTILLA_ADDR.

# The node is as the script says, whatever the user's shell sets for another one.
unset "${!FLOTILLA_@}"

start_node() {
    # From here on every way out passes through clean_up. A command that Ctrl-C ended may have called that a success.
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    node_dir=$(mktemp -d)
    : >"$node_dir/server.log"
    # With job control it gets a process group of its own, so that Ctrl-C reaches the script alone, and the node only when
    # the script stops it.
    set -m
    "$flotilla" server --data-dir "$node_dir/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 \
        --log-format json 2>"$node_dir/server.log" </dev/null &
    node_pid=$!
    set +m
    # The node names the ports that the system gave it in its "ready" line.
    local waited=0
    until FLOTILLA_ADDR=$(sed -n 's/.*"message":"ready".*"grpc":"\([^"]*\)".*/\1/p' "$node_dir/server.log") &&
        [ -n "$FLOTILLA_ADDR" ]; do
        if ! kill -0 "$node_pid" 2>/dev/null || [ $((waited += 1)) -gt 300 ]; then
            echo "the node did not start:" >&2
            cat "$node_dir/server.log" >&2
            exit 1
        fi
        sleep 0.1
    done
    export FLOTILLA_ADDR
}

stop_node() {
    [ -n "${node_pid:-}" ] || return 0
    local pid=$node_pid
    node_pid=
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" || { echo "the node did not stop cleanly:" >&2; cat "$node_dir/server.log" >&2; return 1; }
}

clean_up() {
    local status=$?
    # A second Ctrl-C must not leave anything behind either.
    trap '' HUP INT TERM
    stop_node || status=$((status ? status : 1))
    [ -z "${node_dir:-}" ] || rm -rf "$node_dir"
    exit "$status"
}
