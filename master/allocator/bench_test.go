package allocator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"starling/master/mesos/resources"
)

// cluster makes agents of 8 CPUs and frameworks of one role each, all subscribed and active.
func cluster(b *testing.B, agents, frameworks int) (*Allocator, resources.Resources) {
	b.Helper()
	whole, err := resources.Parse("cpus:8;mem:16384;disk:100000;ports:[31000-32000]", "*")
	if err != nil {
		b.Fatal(err)
	}
	a := New(DefaultConfig(), rand.New(rand.NewPCG(1, 2)))
	for i := range agents {
		id := fmt.Sprintf("agent-%05d", i)
		a.SetAgent(id, AgentSpec{Total: whole, Hostname: id, Active: true})
		a.SetFree(id, whole)
	}
	for i := range frameworks {
		id := fmt.Sprintf("framework-%04d", i)
		a.AddFramework(id, FrameworkSpec{Roles: []Role{fmt.Sprintf("role-%02d/team-%d", i%20, i%3)}})
		a.ActivateFramework(id)
	}
	return a, whole
}

var benchTime = time.Unix(1e9, 0)

// BenchmarkOneChange is the price of an allocation after one change on one agent, where every framework has refused every
// agent: the frameworks are asked in turn, and nobody takes it. Budget: 100 us with 100 frameworks, whatever the number of
// agents; each framework more costs less than 1 us.
func BenchmarkOneChange(b *testing.B) {
	for _, size := range []struct{ agents, frameworks int }{{1000, 100}, {10000, 100}, {1000, 1000}} {
		b.Run(fmt.Sprintf("agents=%d/frameworks=%d", size.agents, size.frameworks), func(b *testing.B) {
			a, whole := cluster(b, size.agents, size.frameworks)
			for range size.frameworks {
				for _, g := range a.Allocate(benchTime) {
					a.Return(g, time.Hour, benchTime)
				}
			}
			if left := a.Allocate(benchTime); len(left) > 0 {
				b.Fatalf("want no offers left, got %d", len(left))
			}
			less := whole.Sub(func() resources.Resources { r, _ := resources.Parse("cpus:1;mem:100", "*"); return r }())
			b.ReportAllocs()
			for b.Loop() {
				a.SetFree("agent-00500", less)
				a.SetFree("agent-00500", whole)
				if grants := a.Allocate(benchTime); len(grants) > 0 {
					b.Fatal("want no grants")
				}
			}
		})
	}
}

// BenchmarkOffer is the price of one offer and its return on a cluster where all else is offered: what a busy master does
// most. Budget: 50 us.
func BenchmarkOffer(b *testing.B) {
	a, _ := cluster(b, 1000, 100)
	grants := a.Allocate(benchTime)
	if len(grants) != 1000 {
		b.Fatalf("want 1000 offers, got %d", len(grants))
	}
	b.ReportAllocs()
	now := benchTime
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Second)
		at := i % len(grants)
		a.Return(grants[at], 0, now)
		got := a.Allocate(now)
		if len(got) != 1 {
			b.Fatalf("want one offer, got %d", len(got))
		}
		grants[at] = got[0]
	}
}

// BenchmarkFirst is the price of the first allocation of a new leader: all agents to all frameworks at once. Budget: 250 ms
// for 10,000 agents and 1,000 frameworks (Mesos: 1.1 s for one cycle).
func BenchmarkFirst(b *testing.B) {
	for _, frameworks := range []int{100, 1000} {
		b.Run(fmt.Sprintf("agents=10000/frameworks=%d", frameworks), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				a, _ := cluster(b, 10000, frameworks)
				b.StartTimer()
				if got := a.Allocate(benchTime); len(got) != 10000 {
					b.Fatalf("want 10000 offers, got %d", len(got))
				}
			}
		})
	}
}

// BenchmarkRevive is the price of one framework's REVIVE where all agents have something free that everybody refused, and of
// its refusing it all again, after which every other framework is asked on every agent, since a filter may have ended in
// between. Budget: 200 us an agent with 100 frameworks.
func BenchmarkRevive(b *testing.B) {
	a, _ := cluster(b, 1000, 100)
	for range 100 {
		for _, g := range a.Allocate(benchTime) {
			a.Return(g, time.Hour, benchTime)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		a.Revive("framework-0007", nil)
		grants := a.Allocate(benchTime)
		if len(grants) != 1000 {
			b.Fatalf("want 1000 offers, got %d", len(grants))
		}
		for _, g := range grants {
			a.Return(g, time.Hour, benchTime)
		}
	}
}

// BenchmarkQuota is BenchmarkFirst where each of the 20 roles has a guarantee and a limit that it meets. Budget: three times
// as much.
func BenchmarkQuota(b *testing.B) {
	for _, frameworks := range []int{100, 1000} {
		b.Run(fmt.Sprintf("agents=10000/frameworks=%d", frameworks), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				a, _ := cluster(b, 10000, frameworks)
				for i := range 20 {
					a.SetQuota(fmt.Sprintf("role-%02d", i), Quota{
						Guarantee: Quantities{resources.CPUs: 1_000_000, resources.Mem: 1_000_000_000},
						Limit:     Quantities{resources.CPUs: 8_000_000, resources.Mem: 20_000_000_000},
					})
				}
				b.StartTimer()
				if got := a.Allocate(benchTime); len(got) < 10000 {
					b.Fatalf("want 10000 offers, got %d", len(got))
				}
			}
		})
	}
}

// BenchmarkHeld is the price of one change where a role's guarantee holds back all that is left, on every agent, from many
// frameworks that want it: a task of a role with a quota ends, and another takes its place.
func BenchmarkHeld(b *testing.B) {
	a, whole := cluster(b, 10000, 100)
	half := Quantities{resources.CPUs: 40_000_000, resources.Mem: 82_000_000_000, resources.Disk: 500_000_000_000}
	a.SetQuota("nobody", Quota{Guarantee: half})
	a.SetQuota("role-03", Quota{Limit: half})
	part, err := resources.Parse("cpus:4;mem:8192;disk:50000;ports:[31000-31500]", "*")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10000 {
		id := fmt.Sprintf("agent-%05d", i)
		a.SetUsed("framework-0003", "role-03/team-0", id, part)
		a.SetFree(id, whole.Sub(part))
	}
	a.Allocate(benchTime)
	b.ReportAllocs()
	for b.Loop() {
		a.SetUsed("framework-0003", "role-03/team-0", "agent-00500", resources.Resources{})
		a.SetFree("agent-00500", whole)
		for _, g := range a.Allocate(benchTime) {
			a.Return(g, time.Hour, benchTime)
		}
		a.SetUsed("framework-0003", "role-03/team-0", "agent-00500", part)
		a.SetFree("agent-00500", whole.Sub(part))
		a.Allocate(benchTime)
	}
}
