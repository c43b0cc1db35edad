package dns

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// A name may have thousands of values, of which a message has room for some. So that no question costs much more than its
// answer, those are chosen before anything is made of them, and few questions are at it at once.

// compute books one of the places of those who compute; done gives it back.
func (g *general) compute(ctx context.Context) (done func(), ok bool) {
	done = func() { <-g.computing }
	select {
	case g.computing <- struct{}{}:
		return done, true // also where the end has come: what was read is answered
	default:
	}
	select {
	case g.computing <- struct{}{}:
		return done, true
	case <-ctx.Done():
		return nil, false
	}
}

// choice is a value that an answer may have, in its order.
type choice struct {
	value records.Value
	class int
	order uint32 // at random, within the class
}

func (c choice) compare(d choice) int {
	return cmp.Or(cmp.Compare(c.class, d.class), cmp.Compare(c.order, d.order))
}

// choose returns at most so many values of one type in order of their class, and at random within one; and how many there
// are. Without classes all are of one.
func choose(name records.Name, t records.Type, most int, class func(v records.Value) int) (chosen []choice, all int) {
	for v := range name.Values(t) {
		all++
		c := choice{value: v, order: rand.Uint32()}
		if class != nil {
			c.class = class(v)
		}
		switch {
		case len(chosen) < 2*most:
		case chosen[most-1].compare(c) < 0:
			continue // not among the first ones, which are in front in order since the last time
		default:
			slices.SortFunc(chosen, choice.compare)
			chosen = chosen[:most]
		}
		chosen = append(chosen, c)
	}
	slices.SortFunc(chosen, choice.compare)
	return chosen[:min(most, len(chosen))], all
}

// leastHeader is how many octets a record has in front of its data where its owner is a pointer.
const leastHeader = 12

// least is about how many octets the smallest record of a type takes in an answer.
func (s *Server) least(t records.Type) int {
	switch t {
	case records.A:
		return leastHeader + 4
	case records.AAAA:
		return leastHeader + 16
	case records.SRV:
		return leastHeader + 6 + 2 + len(s.apex)
	default:
		return leastHeader + 2
	}
}

// answer gives as many values of one type as there is room for, those of near names the nearest first.
func (s *Server) answer(m *dns.Msg, name records.Name, t records.Type, near bool, size int) {
	owner := m.Question[0].Name
	room := size - m.Len()
	var class func(v records.Value) int
	if near {
		class = s.nearest(t)
	}
	chosen, all := choose(name, t, max(1, room/s.least(t)), class)
	var found []records.Record
	for _, c := range chosen {
		found = append(found, c.value.Record())
	}
	classes := make([]int, len(found))
	if near {
		classes = s.rank(found)
	}
	var targets []string
	owned := dns.Len(&dns.ANY{Hdr: s.header(owner, 0)}) - leastHeader // what the pointer saves
	for i, rr := range s.answers(owner, found) {
		if room -= dns.Len(rr) - owned; room < 0 {
			break
		}
		if srv, ok := rr.(*dns.SRV); ok {
			srv.Priority = priority(classes[i])
			targets = append(targets, srv.Target)
		}
		m.Answer = append(m.Answer, rr)
	}
	m.Truncated = len(m.Answer) < all && !s.zone.Config().NoTruncateBit
	m.Extra = append(s.additional(targets, near, room), m.Extra...)
}

// additional gives the targets' addresses, one of each family as the hot path does, while there is room for any.
func (s *Server) additional(targets []string, near bool, room int) []dns.RR {
	var out []dns.RR
	done := map[string]bool{}
	for _, target := range targets {
		if room < s.least(records.A) {
			break
		}
		if done[target] {
			continue
		}
		done[target] = true
		more := s.addresses(target, near)
		out = append(out, more...)
		room -= len(more) * s.least(records.A)
	}
	return out
}

// addresses gives one address of each family that a name has: the first, or of near ones the nearest.
func (s *Server) addresses(target string, near bool) []dns.RR {
	name, _ := s.zone.Find(zoneName(target))
	var out []dns.RR
	for _, t := range []records.Type{records.A, records.AAAA} {
		if best, ok := s.first(name, t, near); ok {
			out = append(out, s.answers(target, []records.Record{best})...)
		}
	}
	return out
}

// maxLook is how many values are looked at for the nearest of them, where a whole answer is made of others.
const maxLook = 16

func (s *Server) first(name records.Name, t records.Type, near bool) (best records.Record, ok bool) {
	look, least := 0, 0
	for v := range name.Values(t) {
		if !near {
			return v.Record(), true
		}
		class := unknownClass
		if a, known := v.Addr(); known {
			class = s.distance(a)
		}
		if !ok || class < least {
			best, least, ok = v.Record(), class, true
		}
		if look++; look == maxLook {
			break
		}
	}
	return best, ok
}

func (s *Server) distance(a netip.Addr) int {
	class, _ := s.config.Ranker.Rank(a)
	return class
}
