#!/usr/bin/env bash
# Prints the figures that the project promises: first those of the real binary, then those of single parts. Each benchmark
# names its budget in its comment. Takes about a quarter of an hour; SCALE=1000 makes the simulated cluster a tenth as large.
set -euo pipefail
cd "$(dirname "$0")/../.."
echo "== the real binary"
go test -run '^$' -bench . -benchtime 1x -timeout 10m ./deploy/bench
echo "== a master with 100 frameworks, and simulated agents with ten tasks each"
go test -run Scale -v -timeout 20m ./deploy/bench/scale -agents "${SCALE:-10000}" -tasks 10 -frameworks 100 | grep -v '^[0-9][0-9]:'
echo "== Marathon with 5,000 apps and 20,000 tasks, and with 500 tasks, on simulated nodes"
go test ./deploy/bench/apps -v -apps $((${SCALE:-10000} / 2)) -nodes 200 -timeout 20m | grep -v '^[=0-9]'
echo "== DNS beside NSD, Unbound and Knot, where they are installed; and while tasks change"
go test -run 'Peers|Updates' -peers -v -timeout 20m ./deploy/bench/dns
echo "== parts"
go test -run '^$' -bench . -benchtime 200ms ./dns/records ./gossip/record ./master/allocator ./master/mesos/codec ./master ./agent/supervisor ./agent/containerizer/process ./gossip
echo "== starts of containers: plain, by libcontainer and by runc; by the Docker engine and by its client"
tags=$(pkg-config --exists libseccomp 2>/dev/null && echo seccomp || true)
make -s build
STARLING_BENCH_BINARY="$PWD/bin/starling" go test -tags "$tags" -run '^$' -bench BenchmarkStart -benchtime 50x ./agent/containerizer/libct | grep '^Benchmark'
go test -run '^$' -bench BenchmarkStart -benchtime 20x ./agent/containerizer/docker | grep '^Benchmark'
echo "== elections and documents in three ZooKeeper servers"
go test -run '^$' -bench . -benchtime 10x ./master/election/zkelection ./master/store/zkstore | grep '^Benchmark'
echo "== a mesh of 100 nodes, in virtual time"
go test -run Figures -figures 100 -v ./gossip
