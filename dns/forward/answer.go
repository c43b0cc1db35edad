package forward

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// question is what an answer is an answer to. The flags change what a resolver says, so they are part of it.
type question struct {
	name         string // lower case
	qtype, class uint16
	// RD and CD of the header, DO of the EDNS0 record
	recursion, unchecked, dnssec bool
}

// entry is one answer as it goes on the wire, without an EDNS0 record. It is not changed, except for what the cache's lock
// guards.
type entry struct {
	question question
	wire     []byte
	stored   time.Time
	expires  time.Time
	// staleUntil is the end of a stale answer's use.
	staleUntil time.Time
	// Guarded by cache.mu: hits since it was stored, and until when it is not fetched anew, since that just failed.
	hits    int
	recheck time.Time
}

func questionOf(m *dns.Msg) question {
	q := m.Question[0]
	o := m.IsEdns0()
	return question{
		name: strings.ToLower(q.Name), qtype: q.Qtype, class: q.Qclass,
		recursion: m.RecursionDesired, unchecked: m.CheckingDisabled, dnssec: o != nil && o.Do(),
	}
}

// conclusive tells whether an answer says something of the name, and not only that the resolver is in trouble.
func (e *entry) conclusive() bool {
	rcode := int(e.wire[3] & 0x0f)
	return rcode == dns.RcodeSuccess || rcode == dns.RcodeNameError
}

// keep cleans an answer, packs it, and remembers it for as long as it may be.
func (f *Forwarder) keep(q question, m *dns.Msg) (*entry, error) {
	m.Id, m.Opcode, m.Compress = 0, dns.OpcodeQuery, true
	m.Authoritative = false
	m.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: q.class}}
	if m.Rcode > 0xf {
		m.Rcode = dns.RcodeServerFailure // the rest of the code is in the record that we drop
	}
	for _, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		*section = slices.DeleteFunc(*section, func(rr dns.RR) bool { return rr == nil || f.unwanted(rr.Header()) })
	}
	life := f.limits.lifetime(m, q.qtype)
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("cannot pack a resolver's answer for %q: %w", q.name, err)
	}
	now := time.Now()
	e := &entry{question: q, wire: slices.Clip(wire), stored: now, expires: now.Add(life), staleUntil: now.Add(life + f.limits.stale)}
	switch {
	case e.conclusive() && life > 0:
		f.cache.put(e)
	case !e.conclusive() && !f.cache.putOff(q, now, stalePause):
		e.expires = now.Add(failurePause)
		e.staleUntil = e.expires
		f.cache.put(e)
	}
	return e, nil
}

// unwanted tells of records that are not passed on: what belongs to the conversation with the resolver, and what is said
// of our own domain by somebody else.
func (f *Forwarder) unwanted(h *dns.RR_Header) bool {
	switch h.Rrtype {
	case dns.TypeOPT, dns.TypeTSIG, dns.TypeSIG:
		return true
	}
	return f.config.Domain != "" && dns.IsSubDomain(f.config.Domain, h.Name)
}

// reply makes a stored answer the answer to a query: in its id, its flags and its case.
func (e *entry) reply(query *dns.Msg, age time.Duration, stale bool) (*dns.Msg, error) {
	m, err := e.message(age, stale)
	if err != nil {
		return nil, fmt.Errorf("cannot read the stored answer for %q: %w", e.question.name, err)
	}
	m.Id, m.Question, m.Compress = query.Id, query.Question, true
	m.RecursionDesired, m.CheckingDisabled = query.RecursionDesired, query.CheckingDisabled
	// What was validated is told to those who know what that means (RFC 6840, 5.8).
	m.AuthenticatedData = m.AuthenticatedData && (query.AuthenticatedData || e.question.dnssec)
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			if h := rr.Header(); strings.EqualFold(h.Name, e.question.name) {
				h.Name = query.Question[0].Name
			}
		}
	}
	return m, nil
}

// staleTTL is the TTL of records in stale answers (RFC 8767, 4).
const staleTTL = 30

// message unpacks an answer that was stored a while ago: TTLs have counted down, and those of a stale one are short.
func (e *entry) message(age time.Duration, stale bool) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(e.wire); err != nil {
		return nil, err
	}
	seconds := uint32(age / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); stale {
				h.Ttl = staleTTL
			} else {
				h.Ttl -= min(h.Ttl, seconds)
			}
		}
	}
	return m, nil
}

// limits are the bounds of how long answers are kept.
type limits struct{ min, max, negative, stale time.Duration }

// lifetime bounds the TTLs in an answer, and tells how long it may be kept: as long as its shortest record, and where it
// says that there is nothing, as its SOA says (RFC 2308, 5). 0 is not at all.
func (l limits) lifetime(m *dns.Msg, qtype uint16) time.Duration {
	if m.Truncated || (m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError) {
		return 0
	}
	longest := l.max
	if negative(m, qtype) {
		longest = min(longest, l.negative)
		var soa *dns.SOA
		for _, rr := range m.Ns {
			if s, ok := rr.(*dns.SOA); ok {
				soa = s
			}
		}
		if soa == nil {
			return 0
		}
		soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	}
	least := uint32(longest / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			if h.Ttl >= 1<<31 {
				h.Ttl = 0 // RFC 2181, 8
			}
			if h.Ttl > 0 {
				h.Ttl = max(h.Ttl, uint32(l.min/time.Second))
			}
			h.Ttl = min(h.Ttl, uint32(longest/time.Second))
			least = min(least, h.Ttl)
		}
	}
	return time.Duration(least) * time.Second
}

// negative tells whether an answer has nothing of the type that was asked for.
func negative(m *dns.Msg, qtype uint16) bool {
	for _, rr := range m.Answer {
		if t := rr.Header().Rrtype; t == qtype || qtype == dns.TypeANY {
			return false
		}
	}
	return true
}
