package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// unusedPort is a port that nobody has at any address, for TCP or UDP. One that the kernel chooses may be another's at the other
// protocol or another address; so this is below those, and below those that other tests choose for a process that they are about to start.
func unusedPort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 11000 + rand.IntN(8000)
		l, _, err := listenDNS("", port, false)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no port is free")
	return 0
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the tables of sockets are Linux's")
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	self := fmt.Sprintf("is held by %s (process %d)", strings.TrimSpace(string(comm)), os.Getpid())
	for _, tc := range []struct{ network, held, ip string }{
		{"tcp", "127.0.0.1", "127.0.0.1"},
		{"udp", "127.0.0.1", "127.0.0.1"},
		{"udp", "127.0.0.53", ""},
		{"udp", "::1", "::1"},
		{"udp", "", "127.0.0.1"},
	} {
		t.Run(tc.network+" "+tc.held+" "+tc.ip, func(t *testing.T) {
			port := unusedPort(t)
			held := net.JoinHostPort(tc.held, strconv.Itoa(port))
			var c io.Closer
			var err error
			if tc.network == "tcp" {
				c, err = net.Listen("tcp", held)
			} else {
				c, err = net.ListenPacket("udp", held)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _, err = listenDNS(tc.ip, port, false)
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), self) || !strings.Contains(err.Error(), "--dns-port") {
				t.Errorf("got %v, want it to say %q and what to do", err, self)
			}
		})
	}
}

func TestRemedyFitsTheHolder(t *testing.T) {
	proc := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(proc, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("net/udp", `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  111: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4711 2 0000000000000000 0
  112: 0100007F:0036 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4712 2 0000000000000000 0
`)
	write("77/comm", "systemd-resolve\n")
	if err := os.MkdirAll(filepath.Join(proc, "77/fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("socket:[4711]", filepath.Join(proc, "77/fd/12")); err != nil {
		t.Fatal(err)
	}
	h, ok := findHolder(proc, "udp", "", 53)
	if want := (holder{netip.MustParseAddrPort("127.0.0.53:53"), "systemd-resolve", 77}); !ok || h != want {
		t.Errorf("got %v, %v, want %v", h, ok, want)
	}
	if got := remedy(h.process); !strings.Contains(got, "DNSStubListener=no") || !strings.Contains(got, "--dns-address") {
		t.Errorf("the remedy is %q", got)
	}
	if h, ok := findHolder(proc, "udp", "127.0.0.1", 53); ok {
		t.Errorf("%v is in nobody's way", h)
	}
	// A socket of another user has no process that may be seen.
	if h, ok := findHolder(proc, "udp", "127.0.0.1", 54); !ok || h.process != "" || !strings.Contains(h.String(), "may not see") {
		t.Errorf("got %v, %v", h, ok)
	}
	if !strings.Contains(remedy("dnsmasq"), "server=/mesos/127.0.0.1#8053") {
		t.Errorf("of dnsmasq: %q", remedy("dnsmasq"))
	}
	err := explainDNS(fmt.Errorf("cannot listen for DNS: %w", syscall.EACCES), "", 53)
	if !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "cap_net_bind_service") || !strings.Contains(err.Error(), "ip_unprivileged_port_start=53") {
		t.Errorf("without the right: %v", err)
	}
}

func TestTablesOfSocketsAreRead(t *testing.T) {
	// A connection of TCP from that port holds nothing; only what listens does.
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0035 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0200000A:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
short line
   2: zz:0035 00000000:0000 0A 0 0 0 0 0 3 1
`
	h, inode, ok := search(bufio.NewScanner(strings.NewReader(table)), true, netip.IPv6Unspecified(), 53)
	if !ok || inode != "2" || h.at.String() != "10.0.0.2:53" {
		t.Errorf("got %v %q %v", h, inode, ok)
	}
	if at, err := parseSocket("B80D01200000000000000000200000000035"); err == nil {
		t.Errorf("nonsense is %v", at)
	}
	if at, err := parseSocket("B80D0120000000000000000001000000:0035"); err != nil || at.String() != "[2001:db8::1]:53" {
		t.Errorf("got %v, %v", at, err)
	}
}
