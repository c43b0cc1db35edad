#!/usr/bin/env bash
# Prints the figures that the project promises: first those of the real binary, then those of single parts. Each benchmark
# names its budget in its comment. Takes about ten minutes; SCALE=1000 makes the simulated cluster a tenth as large.
set -euo pipefail
cd "$(dirname "$0")/../.."
echo "== the real binary"
go test -run '^$' -bench . -benchtime 1x -timeout 10m ./deploy/bench
echo "== a master with 100 frameworks, and simulated agents with ten tasks each"
go test -run Scale -v -timeout 20m ./deploy/bench/scale -agents "${SCALE:-10000}" -tasks 10 -frameworks 100 | grep -v '^[0-9][0-9]:'
echo "== parts"
go test -run '^$' -bench . -benchtime 200ms ./dns/records ./gossip/record ./master/allocator ./master/mesos/codec ./master ./agent/supervisor ./agent/containerizer/process ./gossip
echo "== elections and documents in three ZooKeeper servers"
go test -run '^$' -bench . -benchtime 10x ./master/election/zkelection ./master/store/zkstore | grep '^Benchmark'
echo "== a mesh of 100 nodes, in virtual time"
go test -run Figures -figures 100 -v ./gossip
