# Sourced by scripts that need a node of their own: start_node and stop_node. Expects $flotilla, the path of the binary.
# Sets $node_dir (removed at the end, with everything in it), $node_pid and FLOTILLA_ADDR.

start_node() {
    node_dir=$(mktemp -d)
    : >"$node_dir/server.log"
    trap 'stop_node; rm -rf "$node_dir"' EXIT
    "$flotilla" server --data-dir "$node_dir/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 \
        --log-format json 2>"$node_dir/server.log" &
    node_pid=$!
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
    kill -INT "$node_pid" 2>/dev/null || true
    wait "$node_pid" || { echo "the node did not stop cleanly:" >&2; cat "$node_dir/server.log" >&2; return 1; }
    node_pid=
}
