package resources_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// plain is the same arithmetic in the plainest form: how often each indivisible thing is there.
type plain map[string]int

func plainOf(rs []*mesos.Resource) plain {
	out := plain{}
	for _, r := range rs {
		meta := proto.CloneOf(r)
		meta.Scalar, meta.Ranges, meta.Set = nil, nil, nil
		id := fmt.Sprintf("%v %v %v %v", meta.GetName(), meta.GetReservations(), meta.GetAllocationInfo(), meta.GetDisk())
		if r.GetDisk().GetPersistence() != nil {
			out[fmt.Sprint(id, r.GetScalar().GetValue())]++
			continue
		}
		if s := r.GetScalar(); s != nil {
			out[id] += int(s.GetValue()*1000 + 0.5)
		}
		for _, one := range r.GetRanges().GetRange() {
			for n := one.GetBegin(); n <= one.GetEnd(); n++ {
				out[fmt.Sprint(id, n)] = 1
			}
		}
		for _, one := range r.GetSet().GetItem() {
			out[fmt.Sprint(id, one)] = 1
		}
	}
	return out
}

func (p plain) contains(o plain) bool {
	for k, n := range o {
		if p[k] < n {
			return false
		}
	}
	return true
}

// randomResources makes resources out of few names, roles and numbers, so that they meet often.
func randomResources(t *testing.T, rng *rand.Rand) resources.Resources {
	var in []*mesos.Resource
	for range rng.IntN(8) {
		p := &mesos.Resource{}
		switch rng.IntN(6) {
		case 0:
			set := &mesos.Value_Set{}
			for _, s := range []string{"a", "b", "c", "d"} {
				if rng.IntN(2) == 0 {
					set.Item = append(set.Item, s)
				}
			}
			rng.Shuffle(len(set.Item), func(i, j int) { set.Item[i], set.Item[j] = set.Item[j], set.Item[i] })
			p.Name, p.Type, p.Set = new("bugs"), mesos.Value_SET.Enum(), set
		case 1, 2:
			ranges := &mesos.Value_Ranges{}
			for at := rng.Uint64N(5); at < 30; at += 1 + rng.Uint64N(6) {
				end := at + rng.Uint64N(5)
				ranges.Range = append(ranges.Range, &mesos.Value_Range{Begin: new(at), End: new(end)})
				at = end
			}
			p.Name, p.Type, p.Ranges = new("ports"), mesos.Value_RANGES.Enum(), ranges
		case 3:
			p.Name, p.Type = new("disk"), mesos.Value_SCALAR.Enum()
			p.Scalar = &mesos.Value_Scalar{Value: new(float64(1 + rng.IntN(2)))}
			p.Reservations = []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: new("a")}}
			p.Disk = &mesos.Resource_DiskInfo{
				Persistence: &mesos.Resource_DiskInfo_Persistence{Id: new(fmt.Sprint("v", rng.IntN(2)))},
				Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: new("d")},
			}
		default:
			p.Name, p.Type = new([]string{"cpus", "mem"}[rng.IntN(2)]), mesos.Value_SCALAR.Enum()
			p.Scalar = &mesos.Value_Scalar{Value: new(float64(rng.IntN(30)) / 10)}
		}
		if p.Reservations == nil && rng.IntN(2) == 0 {
			p.Role = new([]string{"*", "a", "b"}[rng.IntN(3)])
		}
		if rng.IntN(3) == 0 {
			p.AllocationInfo = &mesos.Resource_AllocationInfo{Role: new("a")}
		}
		in = append(in, p)
	}
	r, err := resources.FromProto(in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLaws(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	yes := 0
	for range 3000 {
		a, b, c := randomResources(t, rng), randomResources(t, rng), randomResources(t, rng)
		fail := func(law string) { t.Helper(); t.Fatalf("%s\na %v\nb %v\nc %v", law, a, b, c) }
		ab := a.Add(b)
		if !ab.Equal(b.Add(a)) {
			fail("a + b is not b + a")
		}
		if !ab.Add(c).Equal(a.Add(b.Add(c))) {
			fail("(a + b) + c is not a + (b + c)")
		}
		if !resources.Sum(slices.Values([]resources.Resources{a, b, c})).Equal(ab.Add(c)) {
			fail("the sum of all is not a + b + c")
		}
		if !ab.Contains(a) || !ab.Contains(b) || !a.Contains(resources.Resources{}) {
			fail("a + b does not contain its parts")
		}
		if !a.Sub(a).Empty() {
			fail("a - a is not empty")
		}
		if !a.Sub(b).Add(b).Contains(a) {
			fail("(a - b) + b does not contain a")
		}
		if a.Contains(b) {
			yes++
			if !a.Sub(b).Add(b).Equal(a) {
				fail("a contains b, but (a - b) + b is not a")
			}
		}
		// Ranges and sets are sets: what a and b share is there once only.
		if d := ab.Sub(b); !a.Contains(d) {
			fail("(a + b) - b is more than a")
		}
		if got, want := a.Contains(b), plainOf(a.Proto()).contains(plainOf(b.Proto())); got != want {
			fail(fmt.Sprintf("a contains b: %v, plainly %v", got, want))
		}
		if a.Equal(b) != (a.Contains(b) && b.Contains(a)) || a.Equal(b) != (resources.Compare(a, b) == 0) {
			fail("equality is not containment both ways")
		}
		if again, err := resources.FromProto(a.Proto()); err != nil || !again.Equal(a) || again.String() != a.String() {
			fail(fmt.Sprintf("a reads as %v, %v", again, err))
		}
		if again, err := resources.FromProto(a.ProtoPreRefinement()); err != nil || !again.Equal(a) {
			fail(fmt.Sprintf("a in the old format reads as %v, %v", again, err))
		}
		if !a.Unreserved().Add(a.ReservedFor("a")).Add(a.ReservedFor("b")).Equal(a) {
			fail("a is not the sum of its roles")
		}
		if !a.Add(a).Contains(a) || a.Unallocated().Scalar("cpus") != a.Scalar("cpus") {
			fail("allocation counts")
		}
	}
	if yes < 100 {
		t.Errorf("only %d pairs contain each other: the input is too wild", yes)
	}
}

// What an operator writes never breaks anything, and what is accepted reads back as what it prints.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"cpus:4;mem:4096;ports:[31000-32000];disk(role):100", "bugs:{a,b}", "x(a/b):1e3", "a:1;a:[1-2]", "cpus(:4", "cpus(a:b):1",
		`[{"name":"cpus","type":"SCALAR","scalar":{"value":2}}]`, "[", "ports:[0-18446744073709551615]", ":", "a::1",
	} {
		f.Add(s, "")
		f.Add(s, "eng")
	}
	f.Fuzz(func(t *testing.T, s, role string) {
		r, err := resources.Parse(s, role)
		if err != nil {
			return
		}
		again, err := resources.FromProto(r.Proto())
		if err != nil || !again.Equal(r) {
			t.Fatalf("%q gives %v, which reads as %v, %v", s, r, again, err)
		}
		if !r.Contains(r) || !r.Sub(r).Empty() {
			t.Fatalf("%q gives %v, which is not itself", s, r)
		}
	})
}

// Budget: what a launch costs, three additions and a question, stays below ten microseconds.
func BenchmarkBooks(b *testing.B) {
	total, err := resources.Parse("cpus:32;mem:65536;disk:100000;ports:[31000-32000]", "")
	if err != nil {
		b.Fatal(err)
	}
	task, err := resources.Parse("cpus:0.1;mem:32;ports:[31500-31501]", "")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !total.Contains(task) || !total.Sub(task).Add(task).Equal(total) {
			b.Fatal("the books do not balance")
		}
	}
}

func BenchmarkFromProto(b *testing.B) {
	total, err := resources.Parse("cpus:32;mem:65536;disk:100000;ports:[31000-32000]", "")
	if err != nil {
		b.Fatal(err)
	}
	protos := total.AllocatedTo("web").Proto()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := resources.FromProto(protos); err != nil {
			b.Fatal(err)
		}
	}
}
