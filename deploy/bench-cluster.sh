#!/usr/bin/env bash
# Starts a cluster of three nodes in a temporary directory and measures it, everything on this machine.
# docs/benchmarks.md says what the figures mean.
set -euo pipefail

flotilla=${1:?usage: deploy/bench-cluster.sh PATH_OF_FLOTILLA}
repository=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/node.sh
source "$repository/deploy/node.sh"

start_cluster
cpu_seconds() {
    local node ticks=0
    for node in 1 2 3; do
        ticks=$((ticks + $(cut -d' ' -f14,15 "/proc/$(process_of "$node")/stat" | tr ' ' '+')))
    done
    echo "CPU seconds of the three nodes so far: $((ticks / 100)).$((ticks % 100))"
}
set -x
# What the machine can do at this moment, right before and right after, to compare with.
"$flotilla" bench floors --dir "$node_dir" -o json
cpu_seconds
"$flotilla" bench produce --records 500000 --size 1024 --batch-bytes 262144 --producers 4 --partitions 12 --replication-factor 3 -o json
cpu_seconds
"$flotilla" bench produce --records 2000000 --size 100 --batch-bytes 262144 --producers 4 --partitions 12 --replication-factor 3 -o json
cpu_seconds
"$flotilla" bench latency --rate 1000 --size 1024 --seconds 10 --partitions 12 --replication-factor 3 -o json
cpu_seconds
"$flotilla" bench floors --dir "$node_dir" -o json
