package gossip

import (
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// answer makes the answer of a node, as the mdns package sends it.
func answer(t testing.TB, cluster string, records ...dns.RR) []byte {
	t.Helper()
	const name = "starling-1._starling-mesh._tcp.local."
	hdr := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
	}
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: append([]dns.RR{
		&dns.PTR{Hdr: hdr(mdnsService+".local.", dns.TypePTR), Ptr: name},
		&dns.SRV{Hdr: hdr(name, dns.TypeSRV), Port: 7946, Target: "starling-1.local."},
		&dns.A{Hdr: hdr("starling-1.local.", dns.TypeA), A: net.IPv4(10, 0, 0, 1)},
		&dns.AAAA{Hdr: hdr("starling-1.local.", dns.TypeAAAA), AAAA: net.ParseIP("fd00::1")},
		&dns.A{Hdr: hdr("printer.local.", dns.TypeA), A: net.IPv4(10, 0, 0, 99)},
		&dns.TXT{Hdr: hdr(name, dns.TypeTXT), Txt: []string{mdnsCluster + cluster}},
	}, records...)}
	b, err := msg.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnswersOfTheOwnClusterCount(t *testing.T) {
	if got, want := answers(answer(t, "mine"), "mine"), []string{"10.0.0.1:7946", "[fd00::1]:7946"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	for name, b := range map[string][]byte{
		"another cluster": answer(t, "min"), "nothing": nil, "half of one": answer(t, "mine")[:40], "garbage": []byte("garbage garbage garbage"),
	} {
		if got := answers(b, "mine"); got != nil {
			t.Errorf("%s: found %q", name, got)
		}
	}
	var many []dns.RR
	for i := range 200 {
		many = append(many, &dns.A{Hdr: dns.RR_Header{Name: "starling-1.local.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(10, 0, 1, byte(i))})
	}
	if got := answers(answer(t, "mine", many...), "mine"); len(got) > maxAddresses {
		t.Errorf("%d addresses of one answer, want at most %d", len(got), maxAddresses)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(answer(f, "mine"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, addr := range answers(b, "mine") {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				t.Errorf("found %q: %v", addr, err)
			}
		}
	})
}
