package forward

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// fakeServer is a DNS server in memory. Its answers are packets, so that it can send any nonsense.
type fakeServer struct {
	// reply makes the packets that answer a query; none is silence.
	reply func(q *dns.Msg) [][]byte
	// down refuses to be connected to, as a closed port does.
	down bool
}

// network is what a Forwarder under test dials.
type network struct {
	mu      sync.Mutex
	servers map[string]*fakeServer
	// asked counts the queries that each server got, by "udp 192.0.2.1:53"; last is the latest one.
	asked map[string]int
	last  *dns.Msg
}

func newNetwork() *network {
	return &network{servers: map[string]*fakeServer{}, asked: map[string]int{}}
}

func (n *network) set(addr string, reply func(q *dns.Msg) [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[addr] = &fakeServer{reply: reply}
}

func (n *network) count(key string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[key]
}

func (n *network) total() (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.asked {
		sum += c
	}
	return sum
}

func (n *network) dial(_ context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	server := n.servers[addr]
	n.mu.Unlock()
	if server == nil || server.down {
		return nil, fmt.Errorf("cannot connect to %s: refused", addr)
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		for buf := make([]byte, 4096); ; {
			packet, err := receive(far, network, buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if err := q.Unpack(packet); err != nil {
				panic(err)
			}
			n.mu.Lock()
			n.asked[network+" "+addr]++
			n.last = q
			n.mu.Unlock()
			go func() { // a slow answer does not keep it from hearing more
				for _, p := range server.reply(q) {
					if network == "tcp" {
						p = append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...)
					}
					if _, err := far.Write(p); err != nil {
						return
					}
				}
			}()
		}
	}()
	return near, nil
}

func receive(c net.Conn, network string, buf []byte) ([]byte, error) {
	if network == "tcp" {
		if _, err := io.ReadFull(c, buf[:2]); err != nil {
			return nil, err
		}
		buf = buf[:binary.BigEndian.Uint16(buf)]
		_, err := io.ReadFull(c, buf)
		return buf, err
	}
	n, err := c.Read(buf)
	return buf[:n], err
}

// packet packs an answer to a query.
func packet(q *dns.Msg, rcode int, change func(m *dns.Msg), answer ...string) []byte {
	m := new(dns.Msg)
	m.SetRcode(q, rcode)
	m.RecursionAvailable = true
	for _, text := range answer {
		rr := record(text)
		if rr.Header().Rrtype == dns.TypeSOA {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func record(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// says is a server that answers everything with the same records.
func says(answer ...string) func(q *dns.Msg) [][]byte {
	return func(q *dns.Msg) [][]byte { return [][]byte{packet(q, dns.RcodeSuccess, nil, answer...)} }
}

func fails(rcode int) func(q *dns.Msg) [][]byte {
	return func(q *dns.Msg) [][]byte { return [][]byte{packet(q, rcode, nil)} }
}

func silent(*dns.Msg) [][]byte { return nil }

// start makes a forwarder on the network and runs it until the test ends; inside of a bubble, call stop at its end.
func start(t *testing.T, n *network, c Config) (f *Forwarder, stop func()) {
	t.Helper()
	c.Dial = n.dial
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	if c.Resolvers == nil && c.ResolvConf == "" {
		for _, addr := range []string{first, second, third} {
			if n.servers[addr] != nil {
				c.Resolvers = append(c.Resolvers, netip.MustParseAddrPort(addr))
			}
		}
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return f, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

const (
	first  = "192.0.2.1:53"
	second = "192.0.2.2:53"
	third  = "192.0.2.3:53"
)

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

// exchange asks over UDP, and fails the test where that does.
func exchange(t *testing.T, f *Forwarder, name string) *dns.Msg {
	t.Helper()
	m, err := f.Exchange(t.Context(), query(name, dns.TypeA), false)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// texts are the records of a section in zone-file form, sorted.
func texts(section []dns.RR) []string {
	list := []string{}
	for _, rr := range section {
		list = append(list, rr.String())
	}
	slices.Sort(list)
	return list
}

func checkAnswer(t *testing.T, m *dns.Msg, want ...string) {
	t.Helper()
	for i, text := range want {
		want[i] = record(text).String()
	}
	slices.Sort(want)
	if got := texts(m.Answer); !slices.Equal(got, want) {
		t.Errorf("the answer is\n%v\nwant\n%v", got, want)
	}
}
