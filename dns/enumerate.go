package dns

import (
	"cmp"
	"slices"
	"strings"

	"starling/dns/records"
	"starling/gossip/catalog"
)

// Framework is one that the mesh knows of, with the tasks that have names now.
type Framework struct {
	ID, Name string
	// Tasks are in the order of their ids.
	Tasks []records.Task
}

// Frameworks lists the frameworks with their tasks, for people and tools to read: those that have tasks with names, and
// those that a master has told of, ordered by name. It reads a moment's view, and what it returns is the caller's.
func (s *Server) Frameworks() []Framework {
	byID := map[string]*Framework{}
	named := func(id, name string) *Framework {
		f := byID[id]
		if f == nil {
			f = &Framework{ID: id, Name: name}
			byID[id] = f
		}
		return f
	}
	for source, t := range s.zone.Tasks() {
		_, key, _ := strings.Cut(source, "\x00")
		id, _, ok := catalog.ParseTaskKey(key)
		if !ok {
			continue
		}
		f := named(id, t.Framework)
		f.Tasks = append(f.Tasks, t)
	}
	for id, name := range s.told.all() {
		named(id, name)
	}
	all := make([]Framework, 0, len(byID))
	for _, f := range byID {
		slices.SortStableFunc(f.Tasks, func(a, b records.Task) int { return cmp.Compare(a.ID, b.ID) })
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b Framework) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}
