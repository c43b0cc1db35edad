package node

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"starling/cmd/internal/flags"
)

func TestIdentitySurvivesAndIsChecked(t *testing.T) {
	dir := t.TempDir()
	first, err := identity(dir, "node-id", newAgentID)
	if err != nil || !strings.HasSuffix(first, "-S0") {
		t.Fatalf("identity = %q, %v; want an agent id", first, err)
	}
	if again, err := identity(dir, "node-id", newAgentID); err != nil || again != first {
		t.Errorf("identity = %q, %v the second time; want %q", again, err, first)
	}
	if err := os.WriteFile(filepath.Join(dir, "node-id"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := identity(dir, "node-id", newAgentID); err == nil {
		t.Errorf("identity = %q out of an empty file, want an error: a new id would shadow the old node", id)
	}
}

func TestPortsMoveAsideOnlyWhenTheyMay(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if l, _, err := listen("tests", "127.0.0.1", port, false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen on a taken port = %v, %v; want EADDRINUSE", l, err)
	}
	l, got, err := listen("tests", "127.0.0.1", port, true)
	if err != nil || got == port {
		t.Fatalf("listen aside = %d, %v; want another port", got, err)
	}
	defer l.Close()
	udp, tcp, dnsPort, err := listenDNS("127.0.0.1", port, true)
	if err != nil || dnsPort == port || dnsPort == got {
		t.Fatalf("listenDNS aside = %d, %v; want a third port", dnsPort, err)
	}
	udp.Close()
	tcp.Close()
}

func TestPlaceOnTheLoopbackNetworkIsItsOwnName(t *testing.T) {
	dir := t.TempDir()
	c := common{ip: "127.0.0.2", workDir: flags.Path(filepath.Join(dir, "deep", "er")), stderr: io.Discard}
	p, err := c.resolve()
	if err != nil || p.address != "127.0.0.2" || p.hostname != "127.0.0.2" || p.bind != "127.0.0.2" {
		t.Errorf("resolve = %+v, %v", p, err)
	}
	if _, err := os.Stat(p.dir); err != nil {
		t.Errorf("the work folder was not made: %v", err)
	}
	c = common{ip: "127.0.0.2", advertiseIP: "192.0.2.1", hostname: "edge1", workDir: flags.Path(dir)}
	if p, err = c.resolve(); err != nil || p.bind != "127.0.0.2" || p.address != "192.0.2.1" || p.hostname != "edge1" {
		t.Errorf("resolve = %+v, %v", p, err)
	}
}
