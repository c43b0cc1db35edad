package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"starling/dns/udp"
	"starling/gossip/catalog"
)

// Whatever the loop answers itself, the general path answers alike: over random tasks, names, types, cases and sizes.
func TestTheLoopAndTheGeneralPathAgree(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	m := newMesh(t)
	for i := range 12 {
		m.agent(fmt.Sprint("x-S", i), []string{fmt.Sprint("10.0.0.", i+1), fmt.Sprint("fd00::", i+1)}[i%2])
	}
	names := []string{"web", "Web.API", "c.b.a", "x", "Ärger", strings.Repeat("long", 15)}
	for i := range 60 {
		v := task(fmt.Sprint("t.", i), taskRunning, uint32(31000+i))
		v.Name = names[r.IntN(len(names))]
		v.Discovery.Name = v.Name
		if r.IntN(3) == 0 {
			v.Discovery = nil
			v.Resources = []*catalog.Resource{{Name: "ports", Ranges: []*catalog.Range{{Begin: uint64(31000 + i), End: uint64(31001 + i)}}}}
		}
		if r.IntN(2) == 0 {
			v.Healthy = proto.Bool(true)
		}
		m.set(fmt.Sprint("x-S", r.IntN(12)), catalog.TaskKey("f", v.TaskId), v)
	}
	s, _ := start(t, m)
	eventually(t, "it is ready", s.Ready)

	owners := []string{"mesos.", "nobody.mesos.", "marathon.mesos.", "a.b.c.nobody.marathon.mesos.", "_tcp.marathon.mesos.", "slave.mesos.", "_slave._tcp.mesos."}
	for rec := range s.zone.All() {
		owners = append(owners, rec.Name, "below."+rec.Name)
	}
	loop := newFast(s)
	buf := make([]byte, udp.BufferSize)
	from := netip.MustParseAddrPort("127.0.0.1:4711")
	answered := 0
	for range 20_000 {
		q := new(dns.Msg)
		q.SetQuestion(mixCase(r, dns.Fqdn(owners[r.IntN(len(owners))])), []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeNS, dns.TypeTXT}[r.IntN(6)])
		q.RecursionDesired = r.IntN(2) == 0
		if r.IntN(2) == 0 {
			q.SetEdns0([]uint16{0, 512, 700, 1232, 4096}[r.IntN(5)], r.IntN(2) == 0)
		}
		query := pack(q)
		loop.Begin()
		packed, next := loop.Answer(query, buf, from)
		if next != udp.Send {
			continue
		}
		answered++
		var got, want dns.Msg
		if err := got.Unpack(packed); err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		if err := want.Unpack(s.work(t.Context(), query, from)); err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		if diff := differ(&got, &want); diff != "" {
			t.Fatalf("they differ in %s:\nloop %v\ngeneral %v", diff, &got, &want)
		}
	}
	if answered < 5000 {
		t.Errorf("the loop answered %d of 20,000 itself", answered)
	}
}

func mixCase(r *rand.Rand, name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'a' <= c && c <= 'z' && r.IntN(2) == 0 {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// differ names what two answers differ in. Which of many records are in an answer without room for all, and of several
// addresses of a target, is chance.
func differ(a, b *dns.Msg) string {
	switch {
	case a.MsgHdr != b.MsgHdr:
		return "the header"
	case !slices.Equal(a.Question, b.Question):
		return "the question"
	case !a.Truncated && !slices.Equal(exact(a.Answer), exact(b.Answer)):
		return "the answers"
	case a.Truncated && (len(a.Answer) == 0) != (len(b.Answer) == 0):
		return "whether there are answers"
	case !slices.Equal(sorted(a.Ns), sorted(b.Ns)):
		return "the authority"
	case (a.IsEdns0() == nil) != (b.IsEdns0() == nil):
		return "EDNS"
	case a.IsEdns0() != nil && a.IsEdns0().String() != b.IsEdns0().String():
		return "the OPT record"
	}
	return ""
}

// exact keeps the case of owners, by which some askers know their answers (0x20). That of the names in a SOA is theirs with
// whom they share octets.
func exact(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		text := rr.String()
		if t := rr.Header().Rrtype; t == dns.TypeSOA || t == dns.TypeNS {
			text = rr.Header().Name + strings.ToLower(text)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}
