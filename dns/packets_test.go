package dns

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"starling/dns/records"
	"starling/dns/udp"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

var packets = flag.Int("packets", 20_000, "how many odd packets the server gets")

func value(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// crowd is a mesh with some tasks of one name.
func crowd(t *testing.T, tasks int) *mesh {
	m := newMesh(t)
	for i := range tasks {
		node := fmt.Sprint("x-S", i)
		m.agent(node, fmt.Sprint("10.0.0.", i+1))
		m.set(node, catalog.TaskKey("f", fmt.Sprint("web.", i)), task(fmt.Sprint("web.", i), taskRunning, uint32(31000+i)))
	}
	return m
}

// questions are packed queries of all sorts.
func questions(t testing.TB) [][]byte {
	var list [][]byte
	add := func(change func(q *dns.Msg)) {
		q := new(dns.Msg)
		q.SetQuestion("web.marathon.mesos.", dns.TypeA)
		change(q)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	for _, name := range []string{
		"web.marathon.mesos.", "_web._tcp.marathon.mesos.", "mesos.", "nobody.mesos.", "web.*.marathon.mesos.", "a.b.near.mesos.",
		"1.0.0.10.in-addr.arpa.", "example.com.", ".", "version.bind.", strings.Repeat("a.", 100) + "mesos.", strings.Repeat("a", 63) + ".mesos.",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeTXT, dns.TypeANY, dns.TypeAXFR, 0, 65535} {
			add(func(q *dns.Msg) { q.Question[0].Name, q.Question[0].Qtype = name, qtype })
			add(func(q *dns.Msg) {
				q.Question[0].Name, q.Question[0].Qtype = name, qtype
				q.SetEdns0(1232, qtype%2 == 0)
			})
		}
	}
	for opcode := range 16 {
		add(func(q *dns.Msg) { q.Opcode = opcode })
	}
	for _, class := range []uint16{0, 3, 254, 255} {
		add(func(q *dns.Msg) { q.Question[0].Qclass = class })
	}
	add(func(q *dns.Msg) { q.Question = nil })
	add(func(q *dns.Msg) { q.Question = append(q.Question, q.Question...) })
	add(func(q *dns.Msg) { q.Response = true })
	add(func(q *dns.Msg) {
		q.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT}, Txt: []string{"x"}}}
	})
	add(func(q *dns.Msg) {
		q.SetEdns0(65535, true)
		q.IsEdns0().SetVersion(1)
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
	})
	return list
}

// mutate makes an odd packet.
func mutate(r *rand.Rand, from [][]byte) []byte {
	b := append([]byte(nil), from[r.IntN(len(from))]...)
	switch r.IntN(8) {
	case 0: // noise
		b = make([]byte, r.IntN(1600))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	case 1: // noise with a header that looks right
		for i := 12; i < len(b); i++ {
			b[i] = byte(r.Uint32())
		}
	case 2: // cut off
		b = b[:r.IntN(len(b)+1)]
	case 3: // too long
		b = append(b, from[r.IntN(len(from))]...)
	case 4: // counts
		b[4+r.IntN(8)] = byte(r.Uint32())
	case 5: // pointers
		b[r.IntN(len(b))] = 0xc0 | byte(r.Uint32())
	}
	for range r.IntN(4) {
		if len(b) > 0 {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
	}
	return b
}

// Whatever comes, the server goes on, answers what is right, and does not grow. Run it with -packets 1000000 for long.
func TestOddPacketsHarmNothing(t *testing.T) {
	s, addr := start(t, crowd(t, 20))
	want(t, addr, "slave.mesos.", addresses(20)...)
	from := questions(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const senders = 4
	send := func(seed uint64, n int) {
		r := rand.New(rand.NewPCG(seed, 1))
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		buf := make([]byte, 64<<10)
		for i := 0; i < n; {
			for range min(32, n-i) {
				// A mutation may turn into a query for a name, but never into one with this number.
				if b := mutate(r, from); len(b) == 0 || len(b) < 2 || b[0] != 0xab {
					_, _ = conn.Write(b)
				}
				i++
			}
			if !answers(t, conn, buf) {
				t.Errorf("no answer after %d packets of seed %d", i, seed)
				return
			}
		}
	}
	round := func(seed uint64, n int) {
		var group sync.WaitGroup
		for i := range senders {
			group.Go(func() { send(seed+uint64(i), n/senders) })
		}
		group.Wait()
	}
	heap := func() uint64 {
		// What was asked last may still be with workers when all senders have their answers.
		eventually(t, "no worker is busy", func() bool { st := s.udp.Stats(); return st.BusyWork == 0 && st.BusyWait == 0 })
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round(seed, *packets/10)
	before := heap()
	goroutines := runtime.NumGoroutine()
	round(seed+senders, *packets)
	if grown := int64(heap()) - int64(before); grown > 4<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	}
	eventually(t, fmt.Sprintf("no more goroutines than the %d before", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines+4 })
	if n := value(t, s.metrics.panics); n != 0 {
		t.Errorf("%v panics", n)
	}
	st := s.udp.Stats()
	t.Logf("%+v", st)
	if st.Received < uint64(*packets)/2 || st.Odd == 0 || st.Work == 0 || st.Wait == 0 || st.Fast == 0 {
		t.Errorf("%+v: the packets did not come to all parts", st)
	}
}

func addresses(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint("10.0.0.", i+1))
	}
	slices.Sort(list)
	return list
}

// answers asks a plain question on a connection and waits for its answer, past answers to other things, which must be
// messages all the same.
func answers(t *testing.T, conn net.Conn, buf []byte) bool {
	q := new(dns.Msg)
	q.SetQuestion("web.marathon.mesos.", dns.TypeA)
	q.Id = 0xabcd
	b, err := q.Pack()
	if err != nil {
		t.Error(err)
		return false
	}
	for range 10 {
		if _, err := conn.Write(b); err != nil {
			t.Error(err)
			return false
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, err := conn.Read(buf)
			if err != nil {
				break // lost, or swept away by the flood; ask again
			}
			var m dns.Msg
			if err := m.Unpack(buf[:n]); err != nil || !m.Response {
				t.Errorf("%x is no answer: %v", buf[:n], err)
			}
			if m.Id == q.Id && len(m.Answer) == 20 {
				return true
			}
		}
	}
	return false
}

// Every packet, answered by the loop or by a worker, gets at most one answer that fits: same number, within the size that
// the asker takes, readable.
func FuzzPackets(f *testing.F) {
	l, err := Listen(f.Context(), "127.0.0.1", 0)
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	c := Config{
		Source: record.NewMap("reader", 1), Zone: records.DefaultConfig(), Listen: []*Listener{l}, Log: slog.New(slog.DiscardHandler), Rate: 100,
	}
	s, err := New(c)
	if err != nil {
		f.Fatal(err)
	}
	s.synced.Store(true)
	for i := range 40 {
		list := records.Task{
			ID: fmt.Sprint("web.", i), Name: "web", Framework: "marathon", AgentID: fmt.Sprint("x-S", i),
			Agent: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}, HostPorts: []uint16{31000},
		}.Records("mesos")
		s.zone.Replace(fmt.Sprint(i), list)
	}
	for _, q := range questions(f) {
		f.Add(q)
	}
	loop := newFast(s)
	buf := make([]byte, udp.BufferSize)
	f.Fuzz(func(t *testing.T, query []byte) {
		if len(query) > udp.BufferSize {
			return
		}
		loop.Begin()
		answer, next := loop.Answer(query, buf, netip.MustParseAddrPort("127.0.0.1:4711"))
		if next == udp.Work || next == udp.Wait {
			answer = s.work(t.Context(), append([]byte(nil), query...), netip.MustParseAddrPort("127.0.0.1:4711"))
		}
		if slip := truncated(query, make([]byte, udp.BufferSize)); len(query) >= headerLen && slip != nil {
			if err := new(dns.Msg).Unpack(slip); err != nil {
				t.Errorf("the answer to come back over TCP does not unpack: %v", err)
			}
		}
		if answer == nil {
			return
		}
		var m dns.Msg
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer does not unpack: %v", err)
		}
		if answer[0] != query[0] || answer[1] != query[1] || !m.Response {
			t.Errorf("%v answers another query", &m)
		}
		limit := dns.MinMsgSize
		var q dns.Msg
		if q.Unpack(query) == nil && q.IsEdns0() != nil {
			limit = min(max(limit, int(q.IsEdns0().UDPSize())), maxPayload)
		}
		if len(answer) > limit {
			t.Errorf("the answer has %d octets, the asker takes %d", len(answer), limit)
		}
	})
	if n := value(f, s.metrics.panics); n != 0 {
		f.Errorf("%v panics", n)
	}
}
