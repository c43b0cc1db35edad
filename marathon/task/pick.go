package task

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Pick is what a launch takes of an offer.
type Pick struct {
	// Task are the task's own resources, ports included; Executor those of an executor that the app brings along.
	Task, Executor resources.Resources
	// Volumes are the persistent volumes among the task's resources.
	Volumes resources.Resources
	// Ports holds one entry for each of App.Ports.
	Ports []PickedPort
}

// PickedPort is where a port ended up.
type PickedPort struct {
	// Host is the port on the host, 0 for none.
	Host int
	// MadeUp is a number that a port gets which has neither a host port nor a number in its container.
	MadeUp int
}

// All is everything that the launch takes.
func (p Pick) All() resources.Resources { return p.Task.Add(p.Executor) }

// HostPorts lists the host ports in the order of definition, leaving out ports without one.
func (p Pick) HostPorts() []int {
	hostPorts := make([]int, 0, len(p.Ports))
	for _, port := range p.Ports {
		if port.Host != 0 {
			hostPorts = append(hostPorts, port.Host)
		}
	}
	return hostPorts
}

// A pool is the part of an offer that an app may take from, the preferred entries first.
type pool struct {
	entries []*mesos.Resource // in the refined format; amounts shrink as they are taken
}

// newPool holds what is offered to the role that the app runs under, or to a framework of one role that need not be told,
// and reserved for one of the accepted roles.
func newPool(offered resources.Resources, role string, accepted []string) *pool {
	p := new(pool)
	all := offered.NonRevocable().Proto()
	for _, reserved := range accepted {
		for _, r := range all {
			if r.AllocationInfo.GetRole() != "" && r.AllocationInfo.GetRole() != role {
				continue
			}
			if plain(r) && reservedRole(r) == reserved {
				p.entries = append(p.entries, r)
			}
		}
	}
	return p
}

// plain tells whether a resource is there for any task: not a volume or disk of its own, not shared, and not reserved for a
// certain instance of a resident app.
func plain(r *mesos.Resource) bool {
	if r.Disk != nil || r.Shared != nil || r.ProviderId != nil {
		return false
	}
	for _, reservation := range r.Reservations {
		for _, label := range reservation.GetLabels().GetLabels() {
			if label.GetKey() == instanceLabel {
				return false
			}
		}
	}
	return true
}

func reservedRole(r *mesos.Resource) string {
	if n := len(r.Reservations); n > 0 {
		return r.Reservations[n-1].GetRole()
	}
	return resources.AnyRole
}

// pick takes what the app needs, or lists what there is too little of.
func (p *pool) pick(a *app.App, rng *rand.Rand) (Pick, []Refusal) {
	var pick Pick
	var short []Refusal
	var own, executor []*mesos.Resource
	for _, need := range []struct {
		name           string
		reason         Reason
		task, executor float64
	}{
		{resources.CPUs, InsufficientCpus, a.CPUs, executorShare(a).CPUs},
		{resources.Mem, InsufficientMemory, a.Mem, executorShare(a).Mem},
		{resources.Disk, InsufficientDisk, a.Disk, executorShare(a).Disk},
		{resources.GPUs, InsufficientGpus, float64(a.GPUs), 0},
	} {
		total := p.total(need.name)
		forExecutor, okExecutor := p.take(need.name, need.executor)
		forTask, okTask := p.take(need.name, need.task)
		if !okExecutor || !okTask {
			short = append(short, Refusal{Reason: need.reason, Why: fmt.Sprintf("needs %s %s, the offer has %s",
				app.Decimal(need.task+need.executor), need.name, app.Decimal(total.Float()))})
		}
		executor = append(executor, forExecutor...)
		own = append(own, forTask...)
	}
	ports, taken, why := p.pickPorts(a, rng)
	if why != "" {
		short = append(short, Refusal{Reason: InsufficientPorts, Why: why})
	}
	pick.Ports = ports
	own = append(own, taken...)
	if len(short) > 0 {
		return Pick{}, short
	}
	// What was cut out of checked resources is fit to be read again.
	var err error
	if pick.Task, err = resources.FromProto(own); err == nil {
		pick.Executor, err = resources.FromProto(executor)
	}
	if err != nil {
		return Pick{}, []Refusal{{Reason: UnfulfilledRole, Why: fmt.Sprintf("the offer cannot be divided: %v", err)}}
	}
	return pick, nil
}

func executorShare(a *app.App) app.ExecutorResources {
	if a.ExecutorResources == nil {
		return app.ExecutorResources{}
	}
	return *a.ExecutorResources
}

func (p *pool) total(name string) resources.Milli {
	var total resources.Milli
	for _, r := range p.entries {
		if r.GetName() == name {
			total += milli(r.GetScalar().GetValue())
		}
	}
	return total
}

func milli(x float64) resources.Milli {
	m, err := resources.FromFloat(x)
	if err != nil {
		return 0 // what is out of range is nothing that an agent could have
	}
	return m
}

// take cuts an amount out of the pool, from several entries if it must. It reports false if there is too little.
func (p *pool) take(name string, amount float64) ([]*mesos.Resource, bool) {
	left, err := resources.FromFloat(amount)
	if err != nil {
		return nil, false // more than any agent has
	}
	var taken []*mesos.Resource
	for _, r := range p.entries {
		if left <= 0 {
			break
		}
		if r.GetName() != name || r.Scalar == nil {
			continue
		}
		have := milli(r.GetScalar().GetValue())
		part := min(have, left)
		if part <= 0 {
			continue
		}
		piece := proto.CloneOf(r)
		piece.Scalar.Value = new(part.Float())
		taken = append(taken, piece)
		r.Scalar.Value = new((have - part).Float())
		left -= part
	}
	return taken, left <= 0
}

// span is a range of ports in an entry of the pool.
type span struct {
	begin, end uint64
	entry      int
}

func (p *pool) spans() []span {
	var spans []span
	for i, r := range p.entries {
		if r.GetName() != resources.Ports {
			continue
		}
		for _, rng := range r.GetRanges().GetRange() {
			spans = append(spans, span{begin: rng.GetBegin(), end: rng.GetEnd(), entry: i})
		}
	}
	return spans
}

// pickPorts gives each port of the app its host port: the one that it demands, or one of those that are left, chosen at
// random so that a load balancer does not meet a port that served something else a moment ago. It returns why it cannot.
func (p *pool) pickPorts(a *app.App, rng *rand.Rand) ([]PickedPort, []*mesos.Resource, string) {
	wanted := a.Ports()
	picked := make([]PickedPort, len(wanted))
	spans := p.spans()
	taken := make(map[uint64]int) // port -> entry
	free := 0
	for i, port := range wanted {
		switch {
		case port.HostPort == nil:
		case *port.HostPort == 0:
			free++
		default:
			number := uint64(*port.HostPort)
			at := slices.IndexFunc(spans, func(s span) bool { return s.begin <= number && number <= s.end })
			if at < 0 {
				return nil, nil, fmt.Sprintf("needs port %d, which the offer does not have", number)
			}
			taken[number] = spans[at].entry
			picked[i].Host = int(number)
		}
	}
	random := randomPorts(spans, taken, rng)
	for i, port := range wanted {
		if port.HostPort == nil || *port.HostPort != 0 {
			continue
		}
		number, entry, ok := random()
		if !ok {
			return nil, nil, fmt.Sprintf("needs %d ports, the offer has too few", len(taken)+free)
		}
		free--
		taken[number] = entry
		picked[i].Host = int(number)
	}
	for i, port := range wanted {
		if port.HostPort == nil && port.Requested == 0 {
			picked[i].MadeUp = madeUpPort(picked, rng)
		}
	}
	return picked, p.portResources(taken), ""
}

// randomPorts yields the ports of the spans that are not taken: the spans shuffled, from a random place on, one after the
// other, back to that place.
func randomPorts(spans []span, taken map[uint64]int, rng *rand.Rand) func() (uint64, int, bool) {
	var total uint64
	for _, s := range spans {
		total += s.end - s.begin + 1
	}
	if total == 0 {
		return func() (uint64, int, bool) { return 0, 0, false }
	}
	spans = slices.Clone(spans)
	rng.Shuffle(len(spans), func(i, j int) { spans[i], spans[j] = spans[j], spans[i] })
	next, tried := rng.Uint64N(total), uint64(0)
	return func() (uint64, int, bool) {
		for ; tried < total; tried++ {
			offset := next
			next = (next + 1) % total
			for _, s := range spans {
				size := s.end - s.begin + 1
				if offset >= size {
					offset -= size
					continue
				}
				if _, used := taken[s.begin+offset]; !used {
					tried++
					return s.begin + offset, s.entry, true
				}
				break
			}
		}
		return 0, 0, false
	}
}

// madeUpPort returns a number that no other port of the task has.
func madeUpPort(picked []PickedPort, rng *rand.Rand) int {
	for {
		number := 1025 + rng.IntN(65535-1025+1)
		if !slices.ContainsFunc(picked, func(p PickedPort) bool { return p.Host == number || p.MadeUp == number }) {
			return number
		}
	}
}

// portResources returns the taken ports as resources, with the role and reservation of the entries they came from.
func (p *pool) portResources(taken map[uint64]int) []*mesos.Resource {
	numbers := make([]uint64, 0, len(taken))
	for number := range taken {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	pieces := make(map[int]*mesos.Resource)
	var out []*mesos.Resource
	for _, number := range numbers {
		piece := pieces[taken[number]]
		if piece == nil {
			piece = proto.CloneOf(p.entries[taken[number]])
			piece.Ranges = &mesos.Value_Ranges{}
			pieces[taken[number]] = piece
			out = append(out, piece)
		}
		piece.Ranges.Range = append(piece.Ranges.Range, &mesos.Value_Range{Begin: new(number), End: new(number)})
	}
	return out
}
