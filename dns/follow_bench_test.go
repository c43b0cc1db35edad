package dns

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

// BenchmarkApply changes one task of Marathon's in a zone of so many: what is decoded, what its names are, and the swap of all of them. The budget
// is 20 us of CPU a change.
func BenchmarkApply(b *testing.B) {
	for _, tasks := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(tasks), func(b *testing.B) {
			m := record.NewMap("reader", 1)
			value := func(i int, state int32) []byte {
				id := fmt.Sprintf("team_web-%d.instance-3a3a1f0e-8a3b-11f0-9d2c-0242ac11%04x._app.1", i/10, i)
				data, err := proto.Marshal(&catalog.Task{
					TaskId: id, FrameworkId: "5d7f2b7e-3c4b-4c55-9f6e-7d0f3a1b2c3d-0000", FrameworkName: "marathon", Name: fmt.Sprintf("web-%d.team", i/10), State: state,
					Discovery: &catalog.Discovery{Name: fmt.Sprintf("web-%d.team", i/10), Ports: []*catalog.Port{
						{Number: 31000, Name: "http", Protocol: "tcp"}, {Number: 31001, Name: "admin", Protocol: "tcp"},
					}},
					Resources: []*catalog.Resource{
						{Name: "cpus", Milli: 100},
						{Name: "mem", Milli: 32000},
						{Name: "ports", Kind: catalog.Kind_RANGES, Ranges: []*catalog.Range{{Begin: 31000, End: 31001}}},
					},
				})
				if err != nil {
					b.Fatal(err)
				}
				return data
			}
			node, err := proto.Marshal(&catalog.Node{Roles: []string{catalog.RoleAgent}, Address: "10.0.0.1", Port: 5051, AgentId: "5d7f2b7e-3c4b-4c55-9f6e-7d0f3a1b2c3d-S0"})
			if err != nil {
				b.Fatal(err)
			}
			m.Set(epoch, record.Assignment{Key: catalog.KeyNode, Value: node})
			key := func(i int) string { return catalog.TaskKey("f", fmt.Sprint(i)) }
			for i := range tasks {
				m.Set(epoch, record.Assignment{Key: key(i), Value: value(i, taskRunning)})
			}
			f := followed(b, m, nil)
			values := [2][]byte{value(77, 8), value(77, taskRunning)}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				f.take([]record.Change{{Node: "reader", Key: key(77), Value: values[i%2]}})
				i++
			}
		})
	}
}

// BenchmarkFeed is the whole way from a node's own record to the zone, one change at a time, by the feed.
func BenchmarkFeed(b *testing.B) {
	m := record.NewMap("reader", 1)
	f := followed(b, m, nil)
	values := [2][]byte{}
	for i, state := range []int32{8, taskRunning} {
		data, err := proto.Marshal(task("web.1", state, 31000))
		if err != nil {
			b.Fatal(err)
		}
		values[i] = data
	}
	i := 0
	for b.Loop() {
		m.Set(epoch, record.Assignment{Key: catalog.TaskKey("f", "web.1"), Value: values[i%2]})
		i++
		changes, err := f.feed.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		f.take(changes)
	}
}
