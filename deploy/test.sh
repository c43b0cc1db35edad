#!/usr/bin/env bash
# Runs every check and every test with the race detector. What the tests need beside Go is installed from Debian's
# packages first; with CI=true something that lacks is a failure, otherwise the tests that need it are skipped and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

# command:package, or /file:package
needed="python3:python3 dig:dnsutils drill:ldnsutils haproxy:haproxy dnsmasq:dnsmasq-base gcc:gcc protoc:protobuf-compiler git:git ip:iproute2 iptables:iptables \
	java:default-jre-headless /usr/share/java/zookeeper.jar:libzookeeper-java node:nodejs npm:npm \
	/usr/share/gocode/src/github.com/mesos/mesos-go:golang-github-mesos-mesos-go-dev \
	dockerd:docker.io runc:runc /bin/busybox:busybox-static /usr/include/seccomp.h:libseccomp-dev pkg-config:pkg-config linux.uml:user-mode-linux \
	xz:xz-utils bzip2:bzip2 zip:zip prometheus:prometheus /usr/lib/python3/dist-packages/marathon:python3-marathon"

missing=""
for pair in $needed; do
	command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "installing$missing"
		export DEBIAN_FRONTEND=noninteractive
		# A package must not start its services: the tests start their own, with folders of their own.
		policy=/usr/sbin/policy-rc.d
		if [ ! -e "$policy" ]; then
			trap 'rm -f "$policy"' EXIT
			printf '#!/bin/sh\nexit 101\n' >"$policy"
			chmod 755 "$policy"
		fi
		apt-get update -q >/dev/null
		# shellcheck disable=SC2086 # a list of packages
		apt-get install -q -y --no-install-recommends $missing >/dev/null
		[ -z "$(trap -p EXIT)" ] || { rm -f "$policy" && trap - EXIT; }
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
tags=""
[ ! -e /usr/include/seccomp.h ] || tags=seccomp
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT
if ! go test -race -tags "$tags" -timeout 40m "$@" ./... 2>&1 | tee "$printed"; then
	# The output of a failed test may be long, with the logs of all its processes: what it complained of comes last once more.
	echo "== what failed"
	grep -aE '^ *--- FAIL|^FAIL|^panic:|DATA RACE|^ +[A-Za-z0-9_]+\.go:[0-9]+: ' "$printed" | grep -avE '\.go:[0-9]+: ---' | cut -c1-600 | tail -n 100
	exit 1
fi
