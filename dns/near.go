package dns

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"starling/dns/records"
)

// Ranker tells how far away an address is.
type Ranker interface {
	// Rank returns the class of an address, 0 for the own node and more for what is farther, and the round-trip time as far
	// as it is known. It is asked once for each address of an answer.
	Rank(addr netip.Addr) (class int, rtt time.Duration)
}

// nearLabel is the sub-domain in which every name has the answers that it has outside, the nearest first.
const nearLabel = "near."

// isNear tells whether a name of the domain's is in the sub-domain of the nearest.
func (s *Server) isNear(name string) bool {
	if s.config.Ranker == nil {
		return false
	}
	rest, ok := s.cutDomain(name)
	return ok && (rest == nearLabel || strings.HasSuffix(rest, "."+nearLabel))
}

// far is the name without that sub-domain.
func (s *Server) far(name string) string {
	rest, _ := s.cutDomain(name)
	return strings.TrimSuffix(rest, nearLabel) + s.zone.Config().Domain + "."
}

// cutDomain returns, in lower case, the labels of a name before the domain's.
func (s *Server) cutDomain(name string) (string, bool) {
	return strings.CutSuffix(records.Lower(strings.TrimSuffix(name, ".")), s.zone.Config().Domain)
}

// unknownClass is that of a target without an address: behind all that can be reached.
const unknownClass = math.MaxUint16

// maxTargets is how many targets are looked up for their class in one answer, where the zone has no address with them.
const maxTargets = 256

// nearest is the class by which the values of a name are chosen: that of their address.
func (s *Server) nearest(t records.Type) func(v records.Value) int {
	lookups := 0
	return func(v records.Value) int {
		if a, ok := v.Addr(); ok {
			return s.distance(a)
		}
		if lookups++; t != records.SRV || lookups > maxTargets {
			return unknownClass
		}
		return s.class(v.Record())
	}
}

// rank puts records that were chosen in the order of their distance, and returns that of each. Those of one class stay in
// the order in which they come.
func (s *Server) rank(found []records.Record) []int {
	type ranked struct {
		records.Record
		class int
	}
	list := make([]ranked, len(found))
	for i, r := range found {
		list[i] = ranked{r, s.class(r)}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return a.class - b.class })
	classes := make([]int, len(list))
	for i, r := range list {
		found[i], classes[i] = r.Record, r.class
	}
	return classes
}

// priority is how an SRV says its class, so that clients keep to the order too (RFC 2782).
func priority(class int) uint16 { return uint16(min(class, math.MaxUint16)) }

// class is how far away what a record points to is: for an SRV the nearest of its target's addresses.
func (s *Server) class(r records.Record) int {
	if r.Type != records.SRV {
		return s.distance(r.Addr)
	}
	class := unknownClass
	name, _ := s.zone.Find(r.Target)
	for _, t := range []records.Type{records.A, records.AAAA} {
		if best, ok := s.first(name, t, true); ok {
			class = min(class, s.distance(best.Addr))
		}
	}
	return class
}
