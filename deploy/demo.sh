#!/usr/bin/env bash
# Shows what Flotilla promises: starts a cluster of three nodes in a temporary directory, produces every line of a real
# file (the sources of this repository, one behind the other), kills the leader half way, consumes the lines back from the
# others, compares byte for byte, says how long nothing was acknowledged, stops.
set -euo pipefail

flotilla=${1:?usage: deploy/demo.sh PATH_OF_FLOTILLA}
repository=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/node.sh
source "$repository/deploy/node.sh"

step() { printf '\n== %s\n' "$*"; }
# The number behind a name in a JSON document.
number() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"; }
described() { "$flotilla" topic describe lines -o json | number "$1"; }

step "Start three nodes in a temporary directory"
start_cluster
"$flotilla" cluster status

step "Create a topic: one partition, a replica on each node"
"$flotilla" topic create lines --partitions 1 --replication-factor 3

find "$repository" -name '*.rs' -not -path '*/target/*' -print0 | sort -z | xargs -0 cat >"$node_dir/produced"
lines=$(wc -l <"$node_dir/produced")
half=$((lines / 2))
step "Produce every line of this repository's sources ($lines lines), and kill the leader half way"
{
    head -n "$half" "$node_dir/produced"
    until [ "$(described high_watermark)" -ge "$half" ]; do sleep 0.01; done
    leader=$(described leader)
    kill -9 "$(process_of "$leader")"
    echo "$half lines are acknowledged; node $leader, which led, was killed (kill -9) before the next" >&2
    tail -n "+$((half + 1))" "$node_dir/produced"
} | "$flotilla" produce lines -o json >"$node_dir/report"
acked=$(number acked_records <"$node_dir/report")
echo "$acked lines are acknowledged; the others have elected node $(described leader)"
echo "Longest time without an acknowledgement: $(number longest_pause_ms <"$node_dir/report") ms"

step "Consume them back"
started=$(date +%s%N)
"$flotilla" consume lines --from earliest --until-end --format '%v\n' >"$node_dir/consumed"
took_ms=$((($(date +%s%N) - started) / 1000000 + 1))
echo "$lines records in $took_ms ms ($((lines * 1000 / took_ms)) records/s, the start of the command included)"

step "Compare"
cmp "$node_dir/produced" "$node_dir/consumed"
echo "Byte for byte the same: nothing lost, nothing twice, in order."

step "Stop the nodes"
stop_nodes
echo "Done. \`make run\` leaves a node running, \`flotilla dev\` a cluster."
