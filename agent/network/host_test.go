//go:build linux

package network

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"starling/agent/network/netns"
	"starling/agent/testenv"
)

// world is a node, which is the namespace of the test, and another host that is connected with it.
type world struct {
	t     testing.TB
	dir   string
	other string // the namespace of the other host
	log   bytes.Buffer
}

const (
	nodeIP  = "192.0.2.1"
	otherIP = "192.0.2.2"
)

// newWorld makes one as Docker leaves it: forwarding is dropped unless somebody allows it.
func newWorld(t testing.TB) *world {
	t.Helper()
	testenv.NeedRoot(t, "for network namespaces")
	testenv.NeedProgram(t, "iptables")
	w := &world{t: t, dir: t.TempDir()}
	w.other = filepath.Join(w.dir, "other")
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := makeNamespace(w.other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropNamespace(w.other) })
	w.sh(w.other, "true")
	f, err := os.Open(w.other)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(f.Fd()))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink("uplink") })
	w.sh("", "ip addr add "+nodeIP+"/24 dev uplink; ip link set uplink up; ip route add default via "+otherIP)
	w.sh(w.other, "ip addr add "+otherIP+"/24 dev eth0; ip addr add 169.254.169.254/32 dev lo; ip link set eth0 up")
	w.sh("", "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER")
	t.Cleanup(func() {
		w.sh("", "for t in nat filter mangle; do iptables -t $t -F; iptables -t $t -X; done; iptables -P FORWARD ACCEPT")
	})
	return w
}

// sh runs a line in a namespace, that of the node for "".
func (w *world) sh(ns, line string) string {
	w.t.Helper()
	var out []byte
	err := netns.Do(ns, func() (err error) {
		// The child is made by this thread, and is where that is.
		out, err = exec.Command("/bin/sh", "-ec", line).CombinedOutput()
		return err
	})
	if err != nil {
		w.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// networks begins a life of an agent.
func (w *world) networks(change ...func(*Config)) *Networks {
	w.t.Helper()
	cfg := Config{Dir: filepath.Join(w.dir, "network"), Log: slog.New(slog.NewTextHandler(io.MultiWriter(w.t.Output(), &w.log), nil))}
	for _, c := range change {
		c(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := n.Collect(ctx, func(string) bool { return false }); err != nil {
			w.t.Error(err)
		}
		if err := n.Close(ctx); err != nil {
			w.t.Error(err)
		}
	})
	return n
}

func (w *world) attach(n *Networks, req Request) Attachment {
	w.t.Helper()
	a, err := n.Attach(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// serve answers HTTP in a namespace, with a name and who asked.
func (w *world) serve(ns, address, name string) {
	w.t.Helper()
	var l net.Listener
	if err := netns.Do(ns, func() (err error) { l, err = net.Listen("tcp4", address); return err }); err != nil {
		w.t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(out, "%s to %s", name, host)
	})}
	go s.Serve(l)
	w.t.Cleanup(func() { s.Close() })
}

// get asks over HTTP from a namespace.
func (w *world) get(ns, address string, within time.Duration) (string, error) {
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return netns.DialContext(ctx, ns, address)
		},
	}}
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// want asks and expects an answer that contains a text; empty for none.
func (w *world) want(from, ns, address, text string) {
	w.t.Helper()
	if text == "" {
		if got, err := w.get(ns, address, 3*time.Second); err == nil {
			w.t.Errorf("%s reaches %s: %q", from, address, got)
		}
		return
	}
	got, err := w.get(ns, address, time.Minute)
	if err != nil || !strings.Contains(got, text) {
		w.t.Errorf("%s asks %s: got %q, %v, want %q", from, address, got, err, text)
	}
}

// echo answers datagrams in a namespace.
func (w *world) echo(ns, address, name string) {
	w.t.Helper()
	var c net.PacketConn
	if err := netns.Do(ns, func() (err error) { c, err = net.ListenPacket("udp4", address); return err }); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(append([]byte(name+" "), buf[:n]...), from)
		}
	}()
}

// datagram sends one, again if nothing comes back, and returns the answer.
func (w *world) datagram(ns, from, address string) string {
	w.t.Helper()
	var c net.Conn
	err := netns.Do(ns, func() (err error) {
		d := net.Dialer{}
		if from != "" {
			if d.LocalAddr, err = net.ResolveUDPAddr("udp4", from); err != nil {
				return err
			}
		}
		c, err = d.Dial("udp4", address)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 100)
	for range 3 {
		if _, err := c.Write([]byte("hello")); err != nil {
			continue
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err := c.Read(buf); err == nil {
			return string(buf[:n])
		}
	}
	return ""
}

func address(a Attachment) string { return a.Infos[0].GetIpAddresses()[0].GetIpAddress() }
