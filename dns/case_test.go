package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// Case is a question and what must be said to it, records in zone-file form.
type Case struct {
	// Name is a sentence.
	Name string
	// Ask is a name and a type, and a class where that is not IN: "web.marathon.mesos. A".
	Ask string
	// Change makes the query an odd one.
	Change func(q *dns.Msg)
	// From is who asks; this machine by default. TCP is whether only over TCP; by default it is asked both ways.
	From string
	TCP  bool

	Rcode int
	// Flags are those that must be set of "aa ra tc"; "aa ra" by default, "-" for none.
	Flags string
	// The records of each section in any order; Extra does not count the EDNS0 record.
	Answer, Ns, Extra []string
}

// bare is a server that is not running: a test asks it by function calls.
func bare(t testing.TB, change func(c *Config)) *Server {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := Config{
		Source: emptyMesh(), Zone: records.DefaultConfig(), Listen: []*Listener{l},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.synced.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.general.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the general path ended with %v", err)
		}
	})
	return s
}

// writer records what is answered over TCP.
type writer struct{ messages []*dns.Msg }

func (w *writer) WriteMsg(m *dns.Msg) error {
	b, err := m.Pack()
	if err != nil {
		return err
	}
	got := new(dns.Msg)
	w.messages = append(w.messages, got)
	return got.Unpack(b)
}

// askUDP asks as the socket loop does: the hot path first.
func askUDP(t testing.TB, s *Server, q *dns.Msg, from string) *dns.Msg {
	t.Helper()
	query, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	b := s.zone.Answer(query, make([]byte, 2048), 0)
	if b == nil {
		b = s.slow(t.Context(), query, clientAt(from))
	}
	if b == nil {
		t.Fatalf("no answer to %v", q)
	}
	size := udpSize(q)
	if len(b) > size {
		t.Errorf("the answer has %d octets, the client takes %d", len(b), size)
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("the answer does not unpack: %v", err)
	}
	return m
}

func askTCP(t testing.TB, s *Server, q *dns.Msg, from string) []*dns.Msg {
	t.Helper()
	w := &writer{}
	if err := s.answerTCP(t.Context(), w, q, client{addr: clientAt(from).Addr(), tcp: true}); err != nil {
		t.Fatal(err)
	}
	if len(w.messages) == 0 {
		t.Fatalf("no answer to %v", q)
	}
	return w.messages
}

func clientAt(from string) netip.AddrPort {
	if from == "" {
		from = "127.0.0.1"
	}
	return netip.AddrPortFrom(netip.MustParseAddr(from), 40000)
}

func (c Case) query(t testing.TB) *dns.Msg {
	t.Helper()
	fields := strings.Fields(c.Ask)
	qtype, ok := dns.StringToType[fields[1]]
	if !ok {
		t.Fatalf("%q has no type", c.Ask)
	}
	q := new(dns.Msg).SetQuestion(fields[0], qtype)
	if len(fields) > 2 {
		q.Question[0].Qclass = dns.StringToClass[fields[2]]
	}
	if c.Change != nil {
		c.Change(q)
	}
	return q
}

func (c Case) run(t *testing.T, s *Server) {
	t.Run(c.Name, func(t *testing.T) {
		if !c.TCP {
			q := c.query(t)
			c.check(t, "UDP", q, askUDP(t, s, q, c.From))
		}
		q := c.query(t)
		c.check(t, "TCP", q, askTCP(t, s, q, c.From)[0])
	})
}

func (c Case) check(t *testing.T, over string, q, m *dns.Msg) {
	t.Helper()
	if m.Id != q.Id || !m.Response || m.Opcode != q.Opcode || m.RecursionDesired != (q.RecursionDesired && q.Opcode == dns.OpcodeQuery) {
		t.Errorf("%s: the header is not one of an answer to the query:\n%v", over, m)
	}
	if len(q.Question) == 1 && (len(m.Question) != 1 || m.Question[0] != q.Question[0]) {
		t.Errorf("%s: the question is %v, want %v", over, m.Question, q.Question)
	}
	if m.Rcode != c.Rcode {
		t.Errorf("%s: %s, want %s", over, dns.RcodeToString[m.Rcode], dns.RcodeToString[c.Rcode])
	}
	flags := []string{}
	for name, set := range map[string]bool{"aa": m.Authoritative, "ra": m.RecursionAvailable, "tc": m.Truncated, "ad": m.AuthenticatedData, "cd": m.CheckingDisabled} {
		if set {
			flags = append(flags, name)
		}
	}
	slices.Sort(flags)
	want := c.Flags
	if want == "" {
		want = "aa ra"
	}
	if got := strings.Join(flags, " "); got != strings.Trim(want, "-") {
		t.Errorf("%s: flags %q, want %q", over, got, want)
	}
	if o, asked := m.IsEdns0(), q.IsEdns0(); (o != nil) != (asked != nil) {
		t.Errorf("%s: EDNS0 %v, want as asked: %v", over, o, asked)
	} else if o != nil && (o.Do() != asked.Do() || o.UDPSize() != maxPayload || len(o.Option) > 0 || o.Version() != 0) {
		t.Errorf("%s: the EDNS0 record is %v", over, o)
	}
	section(t, over+" answer", m.Answer, c.Answer)
	section(t, over+" authority", m.Ns, c.Ns)
	section(t, over+" additional", slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT }), c.Extra)
}

func section(t *testing.T, what string, got []dns.RR, want []string) {
	t.Helper()
	var texts, wanted []string
	for _, rr := range got {
		if soa, ok := rr.(*dns.SOA); ok {
			soa.Serial = 0
		}
		texts = append(texts, zoneText(rr))
	}
	for _, text := range want {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		wanted = append(wanted, zoneText(rr))
	}
	slices.Sort(texts)
	slices.Sort(wanted)
	if !slices.Equal(texts, wanted) {
		t.Errorf("%s is\n%s\nwant\n%s", what, strings.Join(texts, "\n"), strings.Join(wanted, "\n"))
	}
}

// zoneText is a record with its owner as it is: that one has to be in the asker's case, names in the data may be.
func zoneText(rr dns.RR) string { return rr.Header().Name + " has " + strings.ToLower(rr.String()) }
