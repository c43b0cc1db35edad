package constraint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"starling/master/mesos"
)

// Place is what constraints look at of an agent.
type Place struct {
	Hostname string
	// Region and Zone are empty for an agent without a fault domain.
	Region, Zone string
	// Attributes are in their text form.
	Attributes map[string]string
}

// PlaceOf returns the place of an offer or agent. The attributes are copied; of several with one name the last counts.
func PlaceOf(hostname string, domain *mesos.DomainInfo, attributes []*mesos.Attribute) Place {
	p := Place{
		Hostname: hostname,
		Region:   domain.GetFaultDomain().GetRegion().GetName(),
		Zone:     domain.GetFaultDomain().GetZone().GetName(),
	}
	if len(attributes) > 0 {
		p.Attributes = make(map[string]string, len(attributes))
	}
	for _, a := range attributes {
		p.Attributes[a.GetName()] = attributeText(a)
	}
	return p
}

// Value returns the value of a field: "hostname" or "@hostname", "@region", "@zone", or an attribute. It reports false if
// the agent has no such field.
func (p *Place) Value(field string) (string, bool) {
	switch field {
	case "hostname", "@hostname":
		return p.Hostname, true
	case "@region":
		return p.Region, p.Region != ""
	case "@zone":
		return p.Zone, p.Zone != ""
	}
	value, ok := p.Attributes[field]
	return value, ok
}

func (p *Place) name() string {
	if p.Hostname == "" {
		return "the agent"
	}
	return p.Hostname
}

// attributeText writes a text as it is, a scalar with at most three decimals, ranges and sets sorted.
func attributeText(a *mesos.Attribute) string {
	switch a.GetType() {
	case mesos.Value_SCALAR:
		s := strconv.FormatFloat(a.GetScalar().GetValue(), 'f', 3, 64)
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	case mesos.Value_RANGES:
		ranges := slices.Clone(a.GetRanges().GetRange())
		slices.SortFunc(ranges, func(x, y *mesos.Value_Range) int {
			if x.GetBegin() < y.GetBegin() {
				return -1
			}
			return 1
		})
		texts := make([]string, len(ranges))
		for i, r := range ranges {
			texts[i] = fmt.Sprintf("%d-%d", r.GetBegin(), r.GetEnd())
		}
		return "[" + strings.Join(texts, ",") + "]"
	case mesos.Value_SET:
		return "{" + strings.Join(slices.Sorted(slices.Values(a.GetSet().GetItem())), ",") + "}"
	default:
		return a.GetText().GetValue()
	}
}
