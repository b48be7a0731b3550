#!/usr/bin/env bash
# Shows the whole way of a record: starts a node in a temporary directory, creates a topic, produces every line of a
# real file (the sources of this repository, one behind the other), consumes them back, compares byte for byte, stops.
set -euo pipefail

flotilla=${1:?usage: deploy/demo.sh PATH_OF_FLOTILLA}
repository=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/node.sh
source "$repository/deploy/node.sh"

step() { printf '\n== %s\n' "$*"; }

step "Start a node in a temporary directory"
start_node
echo "It serves gRPC on $FLOTILLA_ADDR and writes to $node_dir"

step "Create a topic"
"$flotilla" topic create lines --partitions 1

find "$repository" -name '*.rs' -not -path '*/target/*' -print0 | sort -z | xargs -0 cat >"$node_dir/produced"
step "Produce every line of this repository's sources ($(wc -l <"$node_dir/produced") lines)"
"$flotilla" produce lines --file "$node_dir/produced"

step "Consume them back"
started=$(date +%s%N)
"$flotilla" consume lines --from earliest --until-end --format '%v\n' >"$node_dir/consumed"
took_ms=$((($(date +%s%N) - started) / 1000000 + 1))
lines=$(wc -l <"$node_dir/consumed")
echo "$lines records in $took_ms ms ($((lines * 1000 / took_ms)) records/s, the start of the command included)"

step "Compare"
cmp "$node_dir/produced" "$node_dir/consumed"
echo "Byte for byte the same."

step "Stop the node"
stop_node
echo "Done. \`make run\` leaves a node running."
