package dns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"starling/dns/records"
)

func TestNamesOfAddresses(t *testing.T) {
	s, asked := withUpstream(t, func(c *Config) { c.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	s.zone.Replace("reverse", []records.Record{
		{Name: "1.0.1.10.in-addr.arpa.", Type: records.PTR, Target: "web-8epxj-s0.marathon.mesos."},
		{Name: "9.9.0.10.in-addr.arpa.", Type: records.PTR, Target: "a.marathon.mesos."},
		{Name: "9.9.0.10.in-addr.arpa.", Type: records.PTR, Target: "b.marathon.mesos."},
	})
	before := asked.Load()
	// Names of addresses. What the zone says of them nobody else is asked for.
	for _, c := range []Case{
		{Name: "the name of an address of ours", Ask: "1.0.1.10.IN-ADDR.arpa. PTR", From: "192.0.2.1", Answer: []string{"1.0.1.10.IN-ADDR.arpa. 5 IN PTR web-8epxj-s0.marathon.mesos."}},
		{Name: "of one that others know better", Ask: "9.9.0.10.in-addr.arpa. PTR", From: "10.1.2.3", Flags: "ra", Answer: []string{"9.9.0.10.in-addr.arpa. 300 IN PTR host.example."}},
		{Name: "but not to those elsewhere", Ask: "9.9.0.10.in-addr.arpa. PTR", From: "192.0.2.1", Rcode: dns.RcodeRefused, Flags: "-"},
	} {
		c.run(t, s)
	}
	if got := asked.Load() - before; got != 1 {
		t.Errorf("upstream was asked %d times for names of addresses, want once", got)
	}
}
