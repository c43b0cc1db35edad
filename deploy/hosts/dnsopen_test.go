package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"starling/agent/testenv"
)

// foreignAddr is the address of somebody out on the Internet.
const foreignAddr = "198.51.100.7"

// away gives the host that address too, and the others the way to it.
func (h *Host) away() {
	h.network.t.Helper()
	ip(h.network.t, "-n "+h.netns+" address add "+foreignAddr+"/32 dev lo")
	for _, o := range h.network.Hosts {
		if o != h {
			ip(h.network.t, "-n "+o.netns+" route add "+foreignAddr+"/32 via "+h.Addr)
		}
	}
}

// from asks out of an address of the host.
func (h *Host) from(addr, server string) *asker {
	h.network.t.Helper()
	var c net.Conn
	err := inside(h.netns, func() (err error) {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(addr)}}
		c, err = d.DialContext(h.network.t.Context(), "udp", server)
		return err
	})
	if err != nil {
		h.network.t.Fatal(err)
	}
	h.network.t.Cleanup(func() { c.Close() })
	return &asker{conn: c, buf: make([]byte, 64<<10)}
}

// An agent whose port 53 the Internet reaches is no open resolver there: names of tasks are answered, others are refused, zones are
// not handed out, and nobody can have it send much to an address that is not his. For its own network, for itself, it is one.
func TestDNSIsNoOpenResolver(t *testing.T) {
	t.Parallel()
	testenv.NeedProgram(t, "dig", "drill")
	const rate = 20
	r := newDNSRig(t, 2, "--resolvers=10.77.0.3", fmt.Sprint("--dns-rate=", rate))
	upstream(r.Flock.Hosts[2])
	tasks := r.app("/web", 3)
	r.client.away()
	server := r.server.Host.Addr
	for _, tc := range []struct {
		name, from string
		allowed    bool
		transfer   bool
	}{
		{"the node itself", "127.0.0.1", true, true},
		{"its network", r.client.Addr, true, false},
		{"a foreign address", foreignAddr, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at, asked := r.client, server
			if tc.from == "127.0.0.1" {
				at, asked = r.server.Host, tc.from
			}
			for _, how := range []string{"+notcp", "+tcp"} {
				out, err := at.try("dig", "-b", tc.from, "@"+asked, how, "+tries=1", "A", "web.marathon.mesos")
				if code, flags := status(out); err != nil || code != "NOERROR" || !strings.Contains(flags, " aa ") || len(fields(out, `web\.marathon\.mesos\.`)) != len(hostsOf(tasks)) {
					t.Errorf("a task's name (%s): %v: %s", how, err, out)
				}
				out, err = at.try("dig", "-b", tc.from, "@"+asked, how, "+tries=1", "A", "www.example.org")
				code, flags := status(out)
				if got := column(fields(out, `www\.example\.org\.`), 4); err != nil || tc.allowed != (len(got) == 1 && got[0] == "192.0.2.80") || !tc.allowed && code != "REFUSED" {
					t.Errorf("a foreign name (%s): %v: %s", how, err, out)
				}
				if strings.Contains(flags, " aa ") {
					t.Errorf("a foreign name (%s) is answered with authority: %s", how, out)
				}
			}
			out, err := at.try("dig", "-b", tc.from, "@"+asked, "+tries=1", "AXFR", "mesos")
			n := len(fields(out, `_web\._tcp\.marathon\.mesos\.`))
			if tc.transfer && (err != nil || n != len(tasks) || !strings.Contains(out, "XFR size")) || !tc.transfer && (n > 0 || !strings.Contains(out, "Transfer failed")) {
				t.Errorf("AXFR: %v: %s", err, out)
			}
		})
	}
	out, err := r.server.Host.try("drill", "AXFR", "mesos", "@127.0.0.1")
	if n := len(fields(out, `_web\._tcp\.marathon\.mesos\.`)); err != nil || n != len(tasks) {
		t.Errorf("drill: AXFR: %v: %d targets\n%.2000s", err, n, out)
	}
	t.Run("rate", func(t *testing.T) { r.limited(t, rate) })
	t.Run("nonsense", func(t *testing.T) { r.harmless(t) })
}

// limited floods the server from a foreign address and from its own network, and counts what comes back.
func (r *dnsRig) limited(t *testing.T, rate int) {
	const questions, silence = 4000, time.Second
	query := pack(t, "web.marathon.mesos.", dnsmessage.TypeA)
	// took is the time in which the answers came: the second that it is meant to be, and longer on a busy machine.
	flood := func(from string) (whole, cut, octets int, took time.Duration) {
		k := r.client.from(from, r.server.Host.at(53))
		var sent atomic.Bool
		done := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			for {
				last := sent.Load()
				_ = k.conn.SetReadDeadline(time.Now().Add(silence))
				n, err := k.conn.Read(k.buf)
				if errors.Is(err, os.ErrDeadlineExceeded) && !last {
					continue // more questions may be under way
				}
				if err != nil {
					return
				}
				took = time.Since(began)
				octets += n
				if k.buf[2]&2 != 0 {
					cut++
				} else {
					whole++
				}
			}
		}()
		for i := range questions {
			if wait := time.Until(began.Add(time.Second * time.Duration(i) / questions)); wait > 0 {
				<-time.After(wait)
			}
			if _, err := k.conn.Write(query); err != nil {
				t.Error(err)
				break
			}
		}
		sent.Store(true)
		<-done
		return whole, cut, octets, took
	}
	whole, cut, octets, took := flood(foreignAddr)
	t.Logf("%d questions of %d octets in %v from a foreign address: %d answers, %d sent to TCP, %d octets", questions, len(query), took, whole, cut, octets)
	// A burst may go through first; what is dropped or cut is then no help to who wants to send much.
	if most := 3*rate + int(float64(rate)*took.Seconds()); whole > most || whole == 0 {
		t.Errorf("%d whole answers in %v, want %d a second and a burst before", whole, took, rate)
	}
	if cut == 0 {
		t.Error("no answer sends an honest client, whose address is made use of, to TCP")
	}
	if octets > questions*len(query)*3/4 {
		t.Errorf("%d octets came back to %d", octets, questions*len(query))
	}
	// An honest one gets there over TCP meanwhile, and others do not notice.
	out, err := r.client.try("dig", "-b", foreignAddr, "@"+r.server.Host.Addr, "+tcp", "+short", "web.marathon.mesos")
	if err != nil || len(strings.Fields(out)) == 0 {
		t.Errorf("over TCP: %v %s", err, out)
	}
	whole, cut, _, _ = flood(r.client.Addr)
	t.Logf("from its own network: %d answers, %d sent to TCP", whole, cut)
	least := questions * 9 / 10
	if !*fullRows {
		least = 10 * rate // a busy machine drops datagrams before anybody sees them
	}
	if cut > 0 || whole < least {
		t.Errorf("%d of %d answers to the own network, %d of them cut", whole, questions, cut)
	}
}

func pack(t *testing.T, name string, q dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: q, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// harmless sends what nobody should send, and sees that the server goes on and answers none of its answers: two servers whose packets
// are given each other's address would else talk for ever.
func (r *dnsRig) harmless(t *testing.T) {
	before, err := r.server.Metric("process_resident_memory_bytes")
	if err != nil {
		t.Fatal(err)
	}
	good := pack(t, "web.marathon.mesos.", dnsmessage.TypeA)
	response := bytes.Clone(good)
	response[2] |= 0x80
	loop := append(bytes.Clone(good[:12]), 0xc0, 12, 0, 1, 0, 1)
	forward := append(bytes.Clone(good[:12]), 0xc0, 0xff, 0, 1, 0, 1)
	many := bytes.Clone(good)
	many[4], many[5] = 0xff, 0xff
	silent := map[string][]byte{"nothing": {}, "a header cut short": good[:7], "an answer": response}
	for name, packet := range map[string][]byte{
		"a name that points to itself": loop, "a name that points beyond": forward, "more questions than there are": many,
		"a question cut short": good[:len(good)-3], "noise behind it": append(bytes.Clone(good), make([]byte, 4000)...),
		"a header alone": good[:12], "zeros": make([]byte, 512), "ones": bytes.Repeat([]byte{0xff}, 512), "a large one": make([]byte, 60000),
	} {
		silent["odd: "+name] = packet
	}
	var k *asker
	for name, packet := range silent {
		// A socket for each: on a busy machine an answer may come when the next one is awaited.
		k = r.client.from(r.client.Addr, r.server.Host.at(53))
		if _, err := k.conn.Write(packet); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = k.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := k.conn.Read(k.buf)
		if !strings.HasPrefix(name, "odd: ") && err == nil {
			t.Errorf("%s is answered with %x", name, k.buf[:n])
		}
		if err == nil && (n < 12 || k.buf[2]&0x80 == 0 || n > 3*len(packet)) {
			t.Errorf("%s: %d octets are answered with %d: %x", name, len(packet), n, k.buf[:n])
		}
	}
	noise := rand.NewChaCha8([32]byte{1})
	for i := range 20000 {
		packet := bytes.Clone(good)
		if i%2 == 0 {
			for range 1 + rand.IntN(4) {
				packet[rand.IntN(len(packet))] = byte(rand.Uint32())
			}
		} else {
			packet = make([]byte, rand.IntN(600))
			_, _ = noise.Read(packet)
		}
		if _, err := k.conn.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	// TCP that says more than it sends, or nothing at all.
	for _, half := range []string{"\xff\xff", "\x00", "\x00\x00", "\x00\x03abc", "GET / HTTP/1.1\r\n\r\n"} {
		c, err := r.client.Dial(t.Context(), "tcp", r.server.Host.at(53))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(half)); err != nil {
			t.Error(err)
		}
	}
	fresh := r.client.from(r.client.Addr, r.server.Host.at(53))
	Eventually(t, 10*time.Second, "it answers all the same", func() error {
		got, err := fresh.ask("web.marathon.mesos.", dnsmessage.TypeA)
		if err == nil && len(got.answers) == 0 {
			err = errors.New("nothing")
		}
		return err
	})
	after, err := r.server.Metric("process_resident_memory_bytes")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory was %.1f MiB, is %.1f MiB", before/(1<<20), after/(1<<20))
	most := float64(48 << 20)
	if raceEnabled {
		most *= 3 // the detector remembers what each goroutine did
	}
	if after > before+most {
		t.Errorf("resident memory was %.1f MiB, is %.1f MiB", before/(1<<20), after/(1<<20))
	}
	if bad := regexp.MustCompile(`panic|level=ERROR.*component=(dns|gossip)`).FindString(r.server.out.String()); bad != "" {
		t.Errorf("it says %q", bad)
	}
}
