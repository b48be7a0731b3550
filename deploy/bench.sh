#!/usr/bin/env bash
# Starts a node in a temporary directory and measures it. docs/benchmarks.md says what the figures mean.
set -euo pipefail

flotilla=${1:?usage: deploy/bench.sh PATH_OF_FLOTILLA}
repository=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=deploy/node.sh
source "$repository/deploy/node.sh"

start_node
set -x
# What the machine can do at this moment, right before and right after, to compare with.
"$flotilla" bench floors --dir "$node_dir" -o json
"$flotilla" bench produce --records 2000000 --size 100 --batch-bytes 262144 --producers 4 --partitions 6 -o json --server-pid "$node_pid"
"$flotilla" bench produce --records 1000000 --size 1024 --batch-bytes 262144 --producers 4 --partitions 6 -o json --server-pid "$node_pid"
"$flotilla" bench produce --records 100000 --size 100 --producers 64 --partitions 6 --mode unary -o json --server-pid "$node_pid"
"$flotilla" bench produce --records 500000 --size 100 --producers 64 --partitions 6 --mode stream -o json --server-pid "$node_pid"
"$flotilla" bench consume --records 3000000 --size 100 --partitions 6 -o json --server-pid "$node_pid"
"$flotilla" bench latency --rate 1000 --size 1024 --seconds 10 -o json --server-pid "$node_pid"
"$flotilla" bench floors --dir "$node_dir" -o json
