package resources

import (
	"fmt"
	"strings"

	"starling/master/mesos"
)

// String writes r the way Mesos does in its messages: "cpus(allocated: web):0.5; mem:128". An empty set is "{}".
func (r Resources) String() string {
	if r.Empty() {
		return "{}"
	}
	var b strings.Builder
	for i, it := range r.items {
		if i > 0 {
			b.WriteString("; ")
		}
		it.format(&b)
	}
	return b.String()
}

func (i item) format(b *strings.Builder) {
	b.WriteString(i.meta.GetName())
	if i.alloc != "" {
		fmt.Fprintf(b, "(allocated: %s)", i.alloc)
	}
	if stack := i.meta.GetReservations(); len(stack) > 0 {
		b.WriteString("(reservations: [")
		for n, one := range stack {
			if n > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(b, "(%s,%s", one.GetType(), one.GetRole())
			if one.Principal != nil {
				b.WriteString("," + one.GetPrincipal())
			}
			b.WriteString(")")
		}
		b.WriteString("])")
	}
	if disk := i.meta.GetDisk(); disk != nil {
		b.WriteString("[")
		if source := disk.GetSource(); source != nil {
			b.WriteString(source.GetType().String())
			if root := sourceRoot(source); root != "" {
				b.WriteString(":" + root)
			}
			if disk.Persistence != nil {
				b.WriteString(",")
			}
		}
		if disk.Persistence != nil {
			b.WriteString(disk.Persistence.GetId() + ":" + disk.GetVolume().GetContainerPath())
		}
		b.WriteString("]")
	}
	if i.meta.Revocable != nil {
		b.WriteString("{REV}")
	}
	if i.meta.Shared != nil {
		b.WriteString("<SHARED>")
	}
	if i.atomic && i.copies > 1 {
		fmt.Fprintf(b, "<%d>", i.copies)
	}
	b.WriteString(":" + i.value.String())
}

func sourceRoot(s *mesos.Resource_DiskInfo_Source) string {
	if s.Mount != nil {
		return s.Mount.GetRoot()
	}
	return s.GetPath().GetRoot()
}
