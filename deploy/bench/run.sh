#!/usr/bin/env bash
# Prints the figures that the project promises: first those of the real binary, then those of single parts. Each benchmark
# names its budget in its comment. Takes about four minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
echo "== the real binary"
go test -run '^$' -bench . -benchtime 1x -timeout 10m ./deploy/bench
echo "== parts"
go test -run '^$' -bench . -benchtime 200ms ./dns/records ./gossip/record ./master/allocator ./master/mesos/codec ./master ./agent/supervisor ./agent/containerizer/process ./gossip
echo "== a mesh of 100 nodes, in virtual time"
go test -run Figures -figures 100 -v ./gossip
