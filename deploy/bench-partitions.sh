#!/usr/bin/env bash
# Starts a cluster of three nodes and measures what many partitions cost: how long creating them takes, memory and idle CPU
# of each node, the produce rate over all of them beside that over twelve, and how long they are without a leader when a node
# is killed. docs/benchmarks.md says what the figures mean. Needs jq.
set -euo pipefail

flotilla=$(realpath "${1:?usage: deploy/bench-partitions.sh PATH_OF_FLOTILLA [PARTITIONS]}")
partitions=${2:-1000}
idle_seconds=30
repository=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/node.sh
source "$repository/deploy/node.sh"

step() { printf '== %s\n' "$*"; }
now_ms() { date +%s%3N; }
status() { "$flotilla" cluster status --addr "${1:-$FLOTILLA_ADDR}" -o json; }
address_of() { cluster_addresses | cut -d, -f"$1"; }
cpu_ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
resident_mib() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$1/status"; }

# Memory and CPU of each node over a while in which nobody asks for anything.
idle() {
    local before=() node pid
    for node in 1 2 3; do before[node]=$(cpu_ticks "$(process_of "$node")"); done
    sleep "$idle_seconds"
    for node in 1 2 3; do
        pid=$(process_of "$node")
        awk -v node="$node" -v ticks=$(($(cpu_ticks "$pid") - before[node])) -v seconds="$idle_seconds" \
            -v hz="$(getconf CLK_TCK)" -v resident="$(resident_mib "$pid")" \
            'BEGIN { printf "node %d: %.1f %% of a core, %d MiB resident\n", node, 100 * ticks / hz / seconds, resident }'
    done
}

create() {
    local started
    started=$(now_ms)
    "$flotilla" topic create "$1" --partitions "$2" --replication-factor 3 >/dev/null
    until [ "$(status | jq .leaderless_partitions)" = 0 ]; do sleep 0.02; done
    echo "$2 partitions created, all led, after $(($(now_ms) - started)) ms"
}

# The rate of a saturated pipeline.
produce() {
    "$flotilla" bench produce --topic "$1" --records 300000 --size 1024 --batch-bytes 262144 --producers 4 -o json |
        jq -r '"\(.partitions) partitions: \(.records_per_second | floor) records/s, p50 \(.p50_ms) ms, p99 \(.p99_ms) ms"'
}

# Whether node $2 is gone and everything is led, in the eyes of node $1.
is_taken_over() {
    status "$(address_of "$1")" |
        jq -e ".leaderless_partitions == 0 and (.nodes[] | select(.node_id == $2) | .online | not)" >/dev/null
}

step "Three nodes without partitions"
start_cluster
idle
step "Create"
create wide "$partitions"
sleep 5
idle
step "Produce 1 KiB records"
create narrow 12
for topic in narrow wide narrow wide; do produce "$topic"; done
sleep 10
idle
step "kill -9 of node 3"
echo "it leads $(status | jq '.nodes[] | select(.node_id == 3).leaders') partitions"
killed=$(now_ms)
kill -9 "$(process_of 3)"
for node in 1 2; do
    until is_taken_over "$node" 3; do sleep 0.01; done
done
echo "all led again, as both others see it, after $(($(now_ms) - killed)) ms"
