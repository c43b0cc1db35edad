package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"starling/dns/forward"
)

// Whatever arrives, an answer is a message with the query's id, no larger than the client takes; and what the hot path
// answers the general path answers alike.
func FuzzGeneral(f *testing.F) {
	s := bare(f, func(c *Config) {
		c.Log = slog.New(slog.DiscardHandler)
		c.Ranker, c.Version = ranks{}, "starling 1"
		c.Forward = &forward.Config{
			Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")},
			Dial:      func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("cut off") },
		}
	})
	fill(s)
	many(s, 40)
	for _, ask := range []string{
		"mesos. SOA", "mesos. NS", "mesos. AXFR", "mesos. ANY", "wEb.marathon.mesos. A", "v6.marathon.mesos. AAAA", "_web._tcp.marathon.mesos. SRV",
		"many.marathon.mesos. A", "_many._tcp.marathon.mesos. SRV", "_many._tcp.marathon.near.mesos. SRV", "web.*.marathon.mesos. A", "nobody.mesos. TXT",
		"www.example. A", "1.0.0.10.in-addr.arpa. PTR", "version.bind. TXT CH", `a\.b\000.mesos. A`, `\195\132rger.marathon.mesos. A`, `\195\132RGER.marathon.near.mesos. A`, "leader.mesos. A",
	} {
		q := Case{Ask: ask}.query(f)
		for range 2 {
			b, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			q.SetEdns0(1232, true)
		}
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		b := s.slow(t.Context(), query, clientAt(""))
		if b == nil {
			if fast := s.zone.Answer(query, make([]byte, 2048), 0); fast != nil && query[2]&0x80 == 0 {
				t.Fatal("the hot path answers what the general path does not")
			}
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			t.Fatalf("the answer does not unpack: %v", err)
		}
		if m.Id != binary.BigEndian.Uint16(query) || !m.Response || len(b) > maxPayload {
			t.Fatalf("the answer has %d octets: %v", len(b), m)
		}
		if fast := s.zone.Answer(query, make([]byte, 2048), 0); fast != nil {
			alike(t, m, fast)
		}
	})
}

// alike compares an answer of the general path to one of the hot path. The order may differ, and what was left out where
// there was no room.
func alike(t *testing.T, m *dns.Msg, packet []byte) {
	t.Helper()
	fast := new(dns.Msg)
	if err := fast.Unpack(packet); err != nil {
		t.Fatalf("the hot path's answer does not unpack: %v", err)
	}
	general, hot := m.MsgHdr, fast.MsgHdr
	if general != hot || (m.IsEdns0() != nil) != (fast.IsEdns0() != nil) {
		t.Fatalf("the headers differ:\ngeneral path %v\nhot path %v", m, fast)
	}
	if o := m.IsEdns0(); o != nil && o.String() != fast.IsEdns0().String() {
		t.Fatalf("the EDNS0 records differ: %v, %v", o, fast.IsEdns0())
	}
	if !slices.Equal(sorted(m.Ns), sorted(fast.Ns)) {
		t.Fatalf("the authority differs:\ngeneral path %v\nhot path %v", m, fast)
	}
	if !m.Truncated && !slices.Equal(sorted(m.Answer), sorted(fast.Answer)) {
		t.Fatalf("the answers differ:\ngeneral path %v\nhot path %v", m, fast)
	}
	for i, rr := range m.Answer {
		if rr.Header().Name != m.Question[0].Name || len(fast.Answer) > i && fast.Answer[i].Header().Name != m.Question[0].Name {
			t.Fatalf("an owner is not in the asker's case:\ngeneral path %v\nhot path %v", m, fast)
		}
	}
}
