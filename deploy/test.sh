#!/usr/bin/env bash
# Runs every check and every test with the race detector. What the tests need beside Go is installed from Debian's
# packages first; with CI=true something that lacks is a failure, otherwise the tests that need it are skipped and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

# command:package, or /file:package
needed="python3:python3 dig:dnsutils gcc:gcc protoc:protobuf-compiler git:git ip:iproute2 iptables:iptables \
	java:default-jre-headless /usr/share/java/zookeeper.jar:libzookeeper-java node:nodejs npm:npm \
	/usr/share/gocode/src/github.com/mesos/mesos-go:golang-github-mesos-mesos-go-dev"

missing=""
for pair in $needed; do
	command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "installing$missing"
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -q >/dev/null
		# shellcheck disable=SC2086 # a list of packages
		apt-get install -q -y --no-install-recommends $missing >/dev/null
	elif [ "${CI:-}" = true ]; then
		echo "missing, and cannot be installed here:$missing" >&2
		exit 1
	else
		echo "missing (tests that need them are skipped):$missing" >&2
	fi
fi

echo "== lint"
make lint
if command -v protoc >/dev/null && git rev-parse --git-dir >/dev/null 2>&1; then
	echo "== generated code is what the definitions make"
	make generate
	git diff --exit-code -- '*.pb.go'
fi
echo "== tests"
go build ./...
CGO_ENABLED=0 go build ./...
exec go test -race -timeout 20m "$@" ./...
