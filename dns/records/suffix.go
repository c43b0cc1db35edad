package records

import "slices"

// suffixes are what the names of blocks end in. Queries read the list that the zone points to, of which no entry changes:
// one that no name has any more gives its place to another in a list made anew.
type suffixes struct {
	numbers map[string]uint16
	// names is how many blocks have each suffix.
	names []uint32
	free  []uint16
	// sweepAt is how many there are when it is time to look for those that no name has.
	sweepAt int
	// sweeps counts how often that was; what was shared before a sweep may be no longer.
	sweeps int
}

const (
	// maxSuffixes bounds the suffixes; names with others have more of themselves in their prefix.
	maxSuffixes = 1 << 15
	minSweep    = 256
	// Two suffixes stay: none, and the apex.
	keptSuffixes = 2
)

func (z *Zone) startSuffixes() {
	z.shared = suffixes{numbers: map[string]uint16{}, sweepAt: minSweep, sweeps: 1}
	z.suffixes.Store(&[]string{})
	z.suffix("")
	z.suffix(z.apex)
}

// suffix makes a key a suffix, where there is room for one more.
func (z *Zone) suffix(key string) {
	s := &z.shared
	if _, ok := s.numbers[key]; ok {
		return
	}
	list := *z.suffixes.Load()
	switch {
	case len(s.free) > 0:
		n := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		list = slices.Clone(list)
		list[n] = key
		s.numbers[key] = n
	case len(list) < maxSuffixes:
		s.numbers[key] = uint16(len(list))
		list = append(list, key)
		s.names = append(s.names, 0)
	default:
		return
	}
	z.suffixes.Store(&list)
}

// intern makes what the names of a framework's tasks end in suffixes.
func (z *Zone) intern(framework string) {
	space := z.new.space(framework)
	if space == nil || space.interned == z.shared.sweeps {
		return
	}
	if len(z.shared.numbers) >= z.shared.sweepAt {
		z.sweep()
	}
	space.interned = z.shared.sweeps
	for _, end := range []string{space.inside, space.outside} {
		for _, service := range []string{"", "_tcp.", "_udp."} {
			if key, err := wire(service + end[1:]); err == nil {
				z.suffix(key)
			}
		}
	}
}

// sweep frees the suffixes that no name has. The next sweep is when there are twice as many as are left, so that all of
// them together cost little.
func (z *Zone) sweep() {
	s := &z.shared
	for key, n := range s.numbers {
		if n >= keptSuffixes && s.names[n] == 0 {
			delete(s.numbers, key)
			s.free = append(s.free, n)
		}
	}
	s.sweepAt = max(minSweep, 2*len(s.numbers))
	s.sweeps++
}

// count adds to the number of blocks that have the suffix of a node.
func (z *Zone) count(n node, by int32) {
	if n.flags()&isBig == 0 {
		z.shared.names[n.block().suffix()] += uint32(by)
	}
}

// cut finds the longest suffix of a name that is known.
func (z *Zone) cut(name []byte) (at int, number uint16) {
	for at < len(name) {
		if n, ok := z.shared.numbers[string(name[at:])]; ok {
			return at, n
		}
		at += 1 + int(name[at])
	}
	return at, 0
}
