# Sourced by scripts that need nodes of their own: start_node or start_cluster, and stop_nodes. Expects $flotilla, the path
# of the binary. Sets $node_dir (removed at the end, with everything in it), $node_pid and FLOTILLA_ADDR.

# The nodes are as the script says, whatever the user's shell sets for other ones.
unset "${!FLOTILLA_@}"

# One node; $node_pid is its process.
start_node() {
    start server --data-dir data --listen 127.0.0.1:0 --http 127.0.0.1:0 --log-format json
    # The node names the ports that the system gave it in its "ready" line.
    await_address sed -n 's/.*"message":"ready".*"grpc":"\([^"]*\)".*/\1/p' "$node_dir/log"
}

# Three nodes, each a process of its own (process_of), as children of $node_pid.
start_cluster() {
    start dev --nodes 3 --base-port 0 --dir cluster -o json
    await_address cluster_addresses
}

# The process of node $1 of the cluster.
process_of() {
    sed -n 's/.*"process_id": \([0-9]*\).*/\1/p' "$node_dir/out" | sed -n "$1p"
}

# Printed in one piece once all of them serve.
cluster_addresses() {
    sed -n 's/.*"address": "\([^"]*\)".*/\1/p' "$node_dir/out" | paste -sd,
}

# Runs flotilla with these arguments in $node_dir, in the background.
start() {
    # From here on every way out passes through clean_up. A command that Ctrl-C ended may have called that a success.
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    node_dir=$(mktemp -d)
    local binary
    binary=$(realpath "$flotilla")
    : >"$node_dir/log"
    : >"$node_dir/out"
    # With job control it gets a process group of its own, so that Ctrl-C reaches the script alone, and the nodes only when
    # the script stops them.
    set -m
    (cd "$node_dir" && exec "$binary" "$@") >"$node_dir/out" 2>"$node_dir/log" </dev/null &
    node_pid=$!
    set +m
}

# Waits until the command given prints where what was started can be reached.
await_address() {
    local waited=0
    until FLOTILLA_ADDR=$("$@") && [ -n "$FLOTILLA_ADDR" ]; do
        if ! kill -0 "$node_pid" 2>/dev/null || [ $((waited += 1)) -gt 600 ]; then
            echo "nothing serves:" >&2
            cat "$node_dir/log" >&2
            exit 1
        fi
        sleep 0.1
    done
    export FLOTILLA_ADDR
}

stop_nodes() {
    [ -n "${node_pid:-}" ] || return 0
    local pid=$node_pid
    node_pid=
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" || { echo "it did not stop cleanly:" >&2; cat "$node_dir/log" >&2; return 1; }
}

clean_up() {
    local status=$?
    # A second Ctrl-C must not leave anything behind either.
    trap '' HUP INT TERM
    stop_nodes || status=$((status ? status : 1))
    [ -z "${node_dir:-}" ] || rm -rf "$node_dir"
    exit "$status"
}
