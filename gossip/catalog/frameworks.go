package catalog

import (
	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
)

// What is believed of records that tell who leads and which frameworks there are. Records are not proof: somebody who wrote the highest
// number into one would otherwise be right for ever, and every node holds what it is told.
const (
	MaxEpoch              = 1 << 62
	MaxFrameworks         = 1000
	MaxFrameworkAddresses = 16
)

// FrameworksOf reads of which term the frameworks in a record are, and how many; ok is false where it tells of none, or nothing to believe.
func FrameworksOf(s *record.Snapshot) (mark *Frameworks, ok bool) {
	value, ok := s.Get(PrefixFramework)
	if !ok {
		return nil, false
	}
	mark = new(Frameworks)
	return mark, proto.Unmarshal(value, mark) == nil && mark.Epoch > 0 && mark.Epoch <= MaxEpoch
}
