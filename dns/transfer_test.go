package dns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// transferred is what an AXFR gives, SOA first and last taken off.
func transferred(t *testing.T, messages []*dns.Msg) []dns.RR {
	t.Helper()
	var list []dns.RR
	for _, m := range messages {
		if m.Rcode != dns.RcodeSuccess || !m.Authoritative || m.Truncated {
			t.Fatalf("a message of the transfer is %v", m)
		}
		list = append(list, m.Answer...)
	}
	if len(list) < 2 || list[0].Header().Rrtype != dns.TypeSOA || list[len(list)-1].String() != list[0].String() {
		t.Fatalf("the transfer does not begin and end with the SOA: %v", list)
	}
	return list[1 : len(list)-1]
}

func TestTransferOfTheZone(t *testing.T) {
	s := bare(t, func(c *Config) { c.Transfer = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	fill(s)
	many(s, 300)
	s.zone.Replace("reverse", []records.Record{{Name: "1.0.1.10.in-addr.arpa.", Type: records.PTR, Target: "web-8epxj-s0.marathon.mesos."}})
	for _, kind := range []string{"AXFR", "IXFR"} {
		messages := askTCP(t, s, Case{Ask: "Mesos. " + kind}.query(t), "10.0.0.9")
		if len(messages) < 3 {
			t.Errorf("%s came in %d messages, want several", kind, len(messages))
		}
		got := sorted(transferred(t, messages))
		if len(got) != len(slices.Compact(slices.Clone(got))) {
			t.Errorf("%s: records came twice", kind)
		}
		// All that can be asked for is there, and no more: the records of each name that came are those that it has.
		names := map[string]bool{}
		for _, m := range messages {
			for _, rr := range m.Answer {
				names[rr.Header().Name] = true
			}
		}
		count := 1 // the NS
		for name := range names {
			found, _ := s.zone.Lookup(zoneName(name))
			count += len(found)
			for _, rr := range s.answers(name, found) {
				if _, ok := slices.BinarySearch(got, sorted([]dns.RR{rr})[0]); !ok {
					t.Errorf("%s: %v is missing", kind, rr)
				}
			}
		}
		if len(got) != count || count < 300*6 {
			t.Errorf("%s: %d records came, want %d", kind, len(got), count)
		}
	}
}

func TestWhoMayTransfer(t *testing.T) {
	s := bare(t, func(c *Config) { c.Transfer = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	fill(s)
	upToDate := func(q *dns.Msg) { q.Ns = []dns.RR{s.soa("mesos.", false)} }
	for _, c := range []Case{
		{Name: "others", Ask: "mesos. AXFR", From: "192.0.2.1", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "others, step by step", Ask: "mesos. IXFR", From: "192.0.2.1", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "what is no zone", Ask: "marathon.mesos. AXFR", TCP: true, From: "10.0.0.1", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "one who has it all", Ask: "mesos. IXFR", Change: upToDate, TCP: true, From: "10.0.0.1", Answer: []string{soaText}},
	} {
		c.run(t, s)
	}
	if m := askUDP(t, s, Case{Ask: "mesos. AXFR"}.query(t), "10.0.0.1"); m.Rcode != dns.RcodeRefused {
		t.Errorf("over UDP: %v", m)
	}
	if m := askUDP(t, s, Case{Ask: "mesos. IXFR"}.query(t), "10.0.0.1"); m.Rcode != 0 || len(m.Answer) != 1 {
		t.Errorf("what is new, over UDP: %v, want the SOA", m)
	}
	s = bare(t, nil)
	if m := askTCP(t, s, Case{Ask: "mesos. AXFR"}.query(t), "")[0]; m.Rcode != 0 {
		t.Errorf("from here by default: %v", m)
	}
	if m := askTCP(t, s, Case{Ask: "mesos. AXFR"}.query(t), "10.0.0.1")[0]; m.Rcode != dns.RcodeRefused {
		t.Errorf("from elsewhere by default: %v", m)
	}
}

func TestTransfersAtOnceAreBounded(t *testing.T) {
	s := bare(t, nil)
	for range maxTransfers {
		s.general.transfers <- struct{}{}
	}
	q := Case{Ask: "mesos. AXFR"}.query(t)
	if m := askTCP(t, s, q, "")[0]; m.Rcode != dns.RcodeServerFailure {
		t.Errorf("one more: %v, want SERVFAIL, upon which secondaries try again", m)
	}
	<-s.general.transfers
	transferred(t, askTCP(t, s, q, ""))
	transferred(t, askTCP(t, s, q, ""))
}

func TestATransferEndsWithTheServer(t *testing.T) {
	s := bare(t, nil)
	many(s, 300)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &writer{}
	err := s.answerTCP(ctx, w, Case{Ask: "mesos. AXFR"}.query(t), client{addr: clientAt("").Addr(), tcp: true})
	if len(w.messages) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d messages were sent after the end, and %v", len(w.messages), err)
	}
}

// The client library's own transfer, over a real connection.
func TestTransferOverTheWire(t *testing.T) {
	m := newMesh(t)
	m.agent("x-S1", "10.0.0.1")
	m.set("x-S1", "task/f/web.1", task("web.1", taskRunning, 31000))
	_, addr := start(t, m)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1")
	const patience = 20 * time.Second // the library's own is two
	envelopes, err := (&dns.Transfer{DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience}).In(new(dns.Msg).SetAxfr("mesos."), addr)
	if err != nil {
		t.Fatal(err)
	}
	var got []dns.RR
	for e := range envelopes {
		if e.Error != nil {
			t.Fatal(e.Error)
		}
		got = append(got, e.RR...)
	}
	names := map[string]bool{}
	for _, rr := range got {
		names[rr.Header().Name] = true
	}
	for _, name := range []string{"mesos.", "web.marathon.mesos.", "_web._tcp.marathon.mesos.", "slave.mesos."} {
		if !names[name] {
			t.Errorf("%s is not in %v", name, got)
		}
	}
}
