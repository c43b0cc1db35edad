package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/testenv"
)

// Network is hosts that share a wire: a namespace each, with an address of its own, and one more with the bridge between them.
// Nothing of it is seen in the namespace of the machine, so neither its firewall nor its routes nor another run meet it.
type Network struct {
	// Hosts are the hosts, with addresses 10.77.0.1, .2, .3 and so on.
	Hosts []*Host

	t      testing.TB
	six    bool   // IPv6 alone
	prefix string // of the names of the namespaces
	hub    string
	client *http.Client

	mu     sync.Mutex
	owners map[string]*Host // by address; guarded by mu
}

// Host is a namespace.
type Host struct {
	// Addr is its address on the wire.
	Addr string

	network *Network
	netns   string
	number  int
	port    string // the hub's end of its link
}

// networks counts those of this process.
var networks atomic.Int64

// wireAddr is the address of the host with that number.
func wireAddr(host int) string { return fmt.Sprintf("10.77.0.%d", host) }

func (w *Network) addr(host int) string {
	if w.six {
		return fmt.Sprintf("fd77::%d", host)
	}
	return wireAddr(host)
}

// withBits is an address as the program ip wants it, with the size of its network.
func (w *Network) withBits(addr string) string {
	if w.six {
		return addr + "/64 nodad" // nobody else is on the wire, and the wait for others takes seconds
	}
	return addr + "/24"
}

// NewNetwork makes a network of n hosts, up to 99, which is gone at the end of the test with all processes in it. Without the
// rights and programs that this takes, the test is skipped; with CI=true it fails.
func NewNetwork(t testing.TB, n int) *Network {
	t.Helper()
	return newNetwork(t, n, false)
}

// NewNetwork6 is NewNetwork with addresses of IPv6 alone, fd77::1, ::2, ::3 and so on.
func NewNetwork6(t testing.TB, n int) *Network {
	t.Helper()
	return newNetwork(t, n, true)
}

func newNetwork(t testing.TB, n int, six bool) *Network {
	t.Helper()
	if err := canNetwork(); err != nil {
		testenv.Lacks(t, "%v", err)
	}
	startJanitor.Do(janitor)
	w := &Network{
		t: t, six: six, prefix: fmt.Sprintf("%s%d-%d-%d-", netnsPrefix, os.Getpid(), startTime(os.Getpid()), networks.Add(1)),
		owners: map[string]*Host{},
	}
	w.hub = w.prefix + "hub"
	w.client = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		// A connection that was idle when its host changed address would be one to the old place.
		DialContext: w.dial, DisableKeepAlives: true,
	}}
	t.Cleanup(func() {
		if err := removeNetworks(func(name string) bool { return strings.HasPrefix(name, w.prefix) }); err != nil {
			t.Error(err)
		}
	})
	ip(t, "netns add "+w.hub)
	// Without snooping the bridge floods multicast, as the simple switches do that most sites have.
	ip(t, "-n "+w.hub+" link add br0 type bridge mcast_snooping 0", "-n "+w.hub+" link set br0 up")
	for i := 1; i <= n; i++ {
		h := &Host{Addr: w.addr(i), network: w, netns: fmt.Sprintf("%sh%d", w.prefix, i), number: i, port: fmt.Sprintf("p%d", i)}
		w.Hosts = append(w.Hosts, h)
		w.owners[h.Addr] = h
		ip(t, "netns add "+h.netns,
			"-n "+w.hub+" link add "+h.port+" type veth peer name eth0 netns "+h.netns,
			"-n "+w.hub+" link set "+h.port+" master br0 up",
			"-n "+h.netns+" link set lo up",
			"-n "+h.netns+" address add "+w.withBits(h.Addr)+" dev eth0",
			"-n "+h.netns+" link set eth0 up")
		h.route()
	}
	return w
}

// route gives the host a default route, as real ones have; it leads nowhere. Multicast needs one.
func (h *Host) route() {
	h.network.t.Helper()
	ip(h.network.t, "-n "+h.netns+" route replace default via "+h.network.addr(254)+" dev eth0")
}

// canNetwork tells what is missing to make networks.
func canNetwork() error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("network namespaces take Linux and root")
	}
	for _, p := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("network namespaces take the program %s (Debian: iproute2, iptables)", p)
		}
	}
	return nil
}

// ip runs the program of that name, once for each line.
func ip(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if err := tryIP(line); err != nil {
			t.Fatal(err)
		}
	}
}

func tryIP(line string) error {
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", line, err, out)
	}
	return nil
}

// netnsDir is where the program ip keeps namespaces.
const netnsDir = "/run/netns"

// inside calls f on a thread that is in a namespace, where f opens sockets and starts processes. The thread is given up
// afterwards, as it must not serve anybody else.
func inside(netns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			ns, err := os.Open(filepath.Join(netnsDir, netns))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("cannot enter %s: %w", netns, err)
			}
			return f()
		}()
	}()
	return <-done
}

// dial connects to a host's address from within that host, so that it works whatever the host is cut off from.
func (w *Network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	at, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	h := w.owners[at]
	w.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("%s is no host's", at)
	}
	return h.Dial(ctx, network, address)
}

// Dial connects from the host to an address, which has to be numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = inside(h.netns, func() error {
		// With one numeric address the socket is made by this very goroutine.
		c, err = (&net.Dialer{Timeout: 15 * time.Second}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Request does one HTTP request to an address of the network; see the function of that name.
func (w *Network) Request(method, url, body string) (int, string, error) {
	return request(w.client, method, url, body)
}

// run runs a program on the host and returns what it printed.
func (h *Host) run(name string, args ...string) string {
	h.network.t.Helper()
	var out []byte
	err := inside(h.netns, func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		h.network.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
