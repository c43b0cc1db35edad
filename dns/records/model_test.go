package records

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// modelTask is sections 2 to 4 of the specification, line by line and as plain as can be. Names in it are short and of
// letters, dots, dashes and underscores, so that nothing needs to be cut.
func modelTask(t *Task) map[string]bool {
	out := map[string]bool{}
	clean := func(s string) string {
		return strings.Trim(strings.NewReplacer(".", "-", "_", "-").Replace(strings.ToLower(s)), "-")
	}
	var parts []string
	for _, p := range strings.Split(t.Framework, ".") {
		if clean(p) != "" {
			parts = append(parts, clean(p))
		}
	}
	framework := strings.Join(parts, ".")
	names := []string{clean(t.Name)}
	if t.Discovery != "" {
		names = []string{strings.ToLower(t.Discovery), clean(t.Discovery)}
	}
	own := t.Addrs
	if len(own) == 0 {
		own = t.Agent
	}
	address := func(name string, list []netip.Addr) {
		for _, a := range list {
			if a.Is4() {
				out[name+" A "+a.String()] = true
			} else {
				out[name+" AAAA "+a.String()] = true
			}
		}
	}
	agent := strings.ToLower(t.AgentID[strings.LastIndex(t.AgentID, "-")+1:])
	for _, name := range names {
		inside, outside := "."+framework+".mesos.", "."+framework+".slave.mesos."
		canonical := name + "-" + hash(t.ID) + "-" + agent
		address(name+inside, own)
		address(canonical+inside, own)
		address(name+outside, t.Agent)
		address(canonical+outside, t.Agent)
		for _, p := range t.HostPorts {
			for _, proto := range []string{"tcp", "udp"} {
				out[fmt.Sprintf("_%s._%s%s SRV %d %s%s", name, proto, outside, p, canonical, outside)] = true
				if t.Discovery == "" {
					out[fmt.Sprintf("_%s._%s%s SRV %d %s%s", name, proto, inside, p, canonical, outside)] = true
				}
			}
		}
		if t.Discovery == "" {
			continue
		}
		for _, p := range t.Ports {
			protocols := []string{strings.ToLower(p.Protocol)}
			if p.Protocol == "" {
				protocols = []string{"tcp", "udp"}
			}
			for _, proto := range protocols {
				out[fmt.Sprintf("_%s._%s%s SRV %d %s%s", name, proto, inside, p.Number, canonical, inside)] = true
				if p.Name != "" {
					out[fmt.Sprintf("_%s._%s._%s%s SRV %d %s%s", clean(p.Name), name, proto, inside, p.Number, canonical, inside)] = true
				}
			}
		}
	}
	return out
}

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// randomTask is one of few names, so that tasks share them, on few nodes.
func randomTask(rng *rand.Rand) *Task {
	t := &Task{
		ID: fmt.Sprint("t.", rng.IntN(500)), Name: pick(rng, "web", "DB_1", "c.b.a", "shop"), Framework: pick(rng, "marathon", "Team.prod_1"),
		AgentID: fmt.Sprint("x-S", rng.IntN(20)), Agent: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(rng.IntN(20))})},
		HostPorts: []uint16{uint16(31000 + rng.IntN(3)), uint16(31003 + rng.IntN(2))}[:rng.IntN(3)],
	}
	for range rng.IntN(3) {
		t.Addrs = append(t.Addrs, pick(rng, netip.AddrFrom4([4]byte{10, 200, byte(rng.IntN(2)), byte(rng.IntN(250))}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", rng.IntN(99)))))
	}
	if rng.IntN(3) > 0 {
		t.Discovery = pick(rng, "web", "Web_UI", "c.b.a")
		for range rng.IntN(3) {
			t.Ports = append(t.Ports, Port{uint16(8080 + rng.IntN(3)), pick(rng, "", "http", "Admin_Port"), pick(rng, "", "tcp", "udp")})
		}
	}
	return t
}

// After each of many random changes the zone must hold what the model says of the tasks that are left, its names must be
// those and the ones above them, and what the fast path answers must be what Lookup knows.
func TestTheZoneIsWhatTheModelSays(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	z := NewZone(DefaultConfig(), 1)
	tasks := map[string]*Task{}
	counts := map[string]int{}
	steps := 3000
	if testing.Short() {
		steps = 600
	}
	for step := range steps {
		// It grows to some hundreds of tasks, with names of hundreds of records, then shrinks to nothing.
		source := fmt.Sprint("node\x00task/", rng.IntN(300))
		var task *Task
		if rng.IntN(steps) > step*5/4-steps/4 {
			task = randomTask(rng)
		}
		if step > steps*9/10 {
			source, task = fmt.Sprint("node\x00task/", (step-steps*9/10)%300), nil
		}
		if old := tasks[source]; old != nil {
			for line := range modelTask(old) {
				if counts[line]--; counts[line] == 0 {
					delete(counts, line)
				}
			}
		}
		delete(tasks, source)
		if task != nil {
			tasks[source] = task
			for line := range modelTask(task) {
				counts[line]++
			}
		}
		z.ReplaceTask(source, task)
		if step%25 != 0 && step != steps-1 {
			continue
		}
		want := slices.Sorted(maps.Keys(counts))
		got := slices.DeleteFunc(allLines(z), func(line string) bool { return strings.HasSuffix(strings.Fields(line)[0], ".agent.mesos.") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("step %d (-model +zone):\n%s", step, diff)
		}
		names := map[string]bool{"mesos.": true}
		for line := range counts {
			for name := strings.Fields(line)[0]; !names[name]; name = name[strings.IndexByte(name, '.')+1:] {
				names[name] = true
			}
		}
		if got := z.Stats().Names; got != len(names) {
			t.Fatalf("step %d: %d names, want %d", step, got, len(names))
		}
		for name := range names {
			if rng.IntN(len(names)) < 40 {
				compareWays(t, z, name, rng.Uint32())
			}
		}
		compareWays(t, z, "nobody.marathon.mesos.", 1)
	}
	if z.Stats().Sources != len(tasks) {
		t.Errorf("%d sources, want %d", z.Stats().Sources, len(tasks))
	}
	for source := range tasks {
		z.ReplaceTask(source, nil)
	}
	if s := z.Stats(); s.Names != 1 || s.Sources != 0 {
		t.Errorf("%+v is left, want the apex alone", s)
	}
}

// compareWays asks the fast path for all types and compares with Lookup.
func compareWays(t *testing.T, z *Zone, name string, start uint32) {
	t.Helper()
	found, exists := z.Lookup(name)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT} {
		want := lines(slices.DeleteFunc(slices.Clone(found), func(r Record) bool { return uint16(r.Type) != qtype }))
		var m dns.Msg
		if err := m.Unpack(z.Answer(queryFor(t, name, qtype), make([]byte, maxUDP), start)); err != nil {
			t.Fatal(err)
		}
		if exists != (m.Rcode == dns.RcodeSuccess) || len(m.Answer) == 0 && len(m.Ns) != 1 {
			t.Fatalf("%s %d: exists %v, answer %v", name, qtype, exists, &m)
		}
		got := rrLines(m.Answer)
		if m.Truncated {
			for _, line := range got {
				if _, ok := slices.BinarySearch(want, line); !ok {
					t.Fatalf("%s: %q is answered and not there", name, line)
				}
			}
			if len(got) >= len(want) {
				t.Fatalf("%s: TC with %d of %d records", name, len(got), len(want))
			}
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s %d (-Lookup +Answer):\n%s", name, qtype, diff)
		}
		targets := map[string]bool{}
		for _, rr := range m.Answer {
			if srv, ok := rr.(*dns.SRV); ok {
				targets[srv.Target] = true
			}
		}
		seen := map[string]bool{}
		for _, rr := range m.Extra {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			line := rrLines([]dns.RR{rr})[0]
			known, _ := z.Lookup(rr.Header().Name)
			if !targets[rr.Header().Name] || seen[line] || !slices.Contains(lines(known), line) {
				t.Fatalf("%s: additional %q is not asked for, twice there, or not true", name, line)
			}
			seen[line] = true
		}
	}
}

// rrLines is lines for what came off the wire.
func rrLines(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		name := strings.ToLower(rr.Header().Name)
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, fmt.Sprintf("%s A %s", name, rr.A))
		case *dns.AAAA:
			out = append(out, fmt.Sprintf("%s AAAA %s", name, rr.AAAA))
		case *dns.SRV:
			out = append(out, fmt.Sprintf("%s SRV %d %s", name, rr.Port, rr.Target))
		default:
			out = append(out, rr.String())
		}
	}
	slices.Sort(out)
	return out
}
