package master

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// checkView returns how a view, which shares what has not changed with earlier ones, differs from one made anew.
func (m *Master) checkView(fault func(string, ...any)) {
	got := m.makeView()
	for _, a := range m.agents {
		a.look = agentLook{}
	}
	for _, f := range m.frameworks {
		f.look, f.tasks.stale = nil, true
		for _, p := range f.tasks.pages {
			p.stale = true
		}
		for _, t := range f.tasks.byID {
			t.shown = nil
		}
	}
	want := m.makeView()
	if len(got.Agents) != len(want.Agents) || len(got.Frameworks) != len(want.Frameworks) {
		fault("view shows %d agents and %d frameworks, there are %d and %d", len(got.Agents), len(got.Frameworks), len(want.Agents), len(want.Frameworks))
		return
	}
	for i, a := range want.Agents {
		if b := got.Agents[i]; !proto.Equal(a.Message(), b.Message()) {
			fault("view shows agent %v, it is %v", b.Message(), a.Message())
		}
	}
	for i := range want.Frameworks {
		a, b := &want.Frameworks[i], &got.Frameworks[i]
		if !proto.Equal(a.Message(), b.Message()) {
			fault("view shows framework %v, it is %v", b.Message(), a.Message())
		}
		all := slices.SortedFunc(maps.Values(m.frameworks[a.Info.GetId().GetValue()].tasks.byID), func(x, y *task) int { return strings.Compare(x.key.task, y.key.task) })
		var live []*task
		for _, t := range all {
			if t.unreachable.IsZero() {
				live = append(live, t)
			}
		}
		if b.Tasks.Len() != len(live) || b.Unreachable.Len() != len(all)-len(live) {
			fault("view shows %d tasks and %d unreachable ones of %d, of which %d are active", b.Tasks.Len(), b.Unreachable.Len(), len(all), len(live))
			continue
		}
		n := 0
		for t := range b.Tasks.All() {
			if want := m.show(live[n]).Message(); !proto.Equal(t.Message(), want) {
				fault("view shows task %v, it is %v", t.Message(), want)
			}
			n++
		}
	}
}
