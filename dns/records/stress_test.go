package records

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var stressFor = flag.Duration("stress", time.Second, "how long TestEachAnswerWasRightAtSomeMoment goes on")

// history knows of each line of some names at which versions it was true, and how many each name had.
type history struct {
	sync.RWMutex
	lines map[string][]uint32          // versions at which a line came, went, came and so on
	sizes map[string][][2]uint32       // versions at which a name changed, with how many lines it has since
	live  map[string]map[string]uint32 // of each name, how often each line is given now
}

func newHistory() *history {
	return &history{lines: map[string][]uint32{}, sizes: map[string][][2]uint32{}, live: map[string]map[string]uint32{}}
}

// change notes what a version takes away and adds: lines, each of which begins with its name.
func (h *history) change(version uint32, gone, come []string) {
	h.Lock()
	defer h.Unlock()
	before := map[string]bool{}
	of := func(line string) (string, map[string]uint32) {
		name, _, _ := strings.Cut(line, " ")
		if h.live[name] == nil {
			h.live[name] = map[string]uint32{}
		}
		if _, ok := before[line]; !ok {
			before[line] = h.live[name][line] > 0
		}
		return name, h.live[name]
	}
	for _, line := range gone {
		name, live := of(line)
		if live[line]--; live[line] == 0 {
			delete(h.live[name], line)
		}
	}
	for _, line := range come {
		_, live := of(line)
		live[line]++
	}
	for line, was := range before {
		name, live := of(line)
		if was != (live[line] > 0) {
			h.lines[line] = append(h.lines[line], version)
			h.sizes[name] = append(h.sizes[name], [2]uint32{version, uint32(len(live))})
		}
	}
}

// wasSo tells whether there was a version, of those between two, at which all lines were true, and the name had no more
// than they where they are said to be all.
func (h *history) wasSo(name string, lines []string, all bool, from, to uint32) bool {
	h.RLock()
	defer h.RUnlock()
	return slices.ContainsFunc(versions(from, to), func(v uint32) bool {
		for _, line := range lines {
			i, found := slices.BinarySearch(h.lines[line], v)
			if found {
				i++
			}
			if i%2 == 0 {
				return false
			}
		}
		size := 0
		for _, s := range h.sizes[name] {
			if s[0] <= v {
				size = int(s[1])
			}
		}
		return !all || size == len(lines)
	})
}

func versions(from, to uint32) (list []uint32) {
	for v := from; v <= to; v++ {
		list = append(list, v)
	}
	return list
}

// Queries go on, by both ways, while one writer changes names that are small and names that are big, makes them come and go,
// and fills and empties the tables with others. Each answer must be what the zone had to say at one moment of the call: no
// record of before beside one of after, no record of another name, none lost. An SRV must have the address that it had then.
func TestEachAnswerWasRightAtSomeMoment(t *testing.T) {
	for began := time.Now(); time.Since(began) < *stressFor && !t.Failed(); {
		seed := rand.Uint64()
		stress(t, seed, 4000)
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}
}

func stress(t *testing.T, seed uint64, changes uint32) {
	z, h := NewZone(DefaultConfig(), 1), newHistory()
	var started, done atomic.Uint32
	var stop atomic.Bool
	var g sync.WaitGroup
	service := func(app string) string { return "_http._" + app + "._tcp.marathon.mesos." }
	names := []string{service("one"), service("few"), service("many"), "one.marathon.mesos.", "few.marathon.mesos.", "many.marathon.mesos.", "many.marathon.slave.mesos."}
	var answers atomic.Uint64
	for r := range 3 {
		g.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(r)))
			buf := make([]byte, maxUDP)
			for !stop.Load() && !t.Failed() {
				name := names[rng.IntN(len(names))]
				qtype := dns.TypeA
				if name[0] == '_' {
					qtype = dns.TypeSRV
				}
				var got []string
				all := true
				query := queryFor(t, name, qtype)
				from := done.Load()
				if rng.IntN(2) == 0 {
					found, exists := z.Lookup(name)
					to := started.Load()
					if got = lines(found); exists != (len(got) > 0) || !h.wasSo(name, got, true, from, to) {
						t.Errorf("Lookup of %s between %d and %d: exists %v, %q", name, from, to, exists, got)
					}
					continue
				}
				answer := z.Answer(query, buf, rng.Uint32())
				to := started.Load()
				var m dns.Msg
				if err := m.Unpack(answer); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				all = !m.Truncated
				got = append(got, rrLines(m.Answer)...)
				size := len(got)
				for _, line := range rrLines(slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })) {
					got = append(got, "glue:"+name+" "+line)
				}
				// The lines of glue are those of a name of their own in the history.
				if !h.wasSo(name, got, false, from, to) || all && !h.wasSo(name, got[:size], true, from, to) || (m.Rcode == dns.RcodeNameError) != (size == 0) {
					t.Errorf("answer for %s between %d and %d: code %d, TC %v, %q", name, from, to, m.Rcode, m.Truncated, got)
				}
				answers.Add(1)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	now := map[string]*Task{}
	linesOf := func(task *Task) (out []string) {
		if task == nil {
			return nil
		}
		for _, line := range lines(task.Records("mesos")) {
			name, _, _ := strings.Cut(line, " ")
			if !slices.Contains(names, name) {
				continue
			}
			out = append(out, line)
			if name[0] == '_' {
				out = append(out, fmt.Sprintf("glue:%s %s A %s", name, line[strings.LastIndexByte(line, ' ')+1:], task.Addrs[0]))
			}
		}
		return out
	}
	for version := uint32(1); version <= changes && !t.Failed(); version++ {
		app, instances := "one", 1
		switch rng.IntN(8) {
		case 0, 1:
			app, instances = "few", 9
		case 2, 3, 4:
			app, instances = "many", 160
		case 5:
			app, instances = fmt.Sprint("other", rng.IntN(200)), 1
		}
		source := fmt.Sprint(app, "/", rng.IntN(instances))
		var task *Task
		// In the first half and the third quarter there are more and more of them, in the others fewer.
		if phase := version * 4 / changes; rng.IntN(10) < []int{8, 7, 1, 6, 0}[phase] {
			n := rng.IntN(250)
			task = &Task{
				ID: fmt.Sprint(source, rng.IntN(2)), Name: app, Framework: "marathon", AgentID: "x-S1", Agent: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(n % 9)})},
				Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(rng.IntN(2)), byte(n)})}, Discovery: app, Ports: []Port{{uint16(31000 + rng.IntN(2)), "http", "tcp"}},
			}
			if strings.HasPrefix(app, "other") {
				task.Framework = fmt.Sprint("f", rng.IntN(1000))
			}
		}
		h.change(version, linesOf(now[source]), linesOf(task))
		now[source] = task
		started.Store(version)
		z.ReplaceTask(source, task)
		done.Store(version)
	}
	stop.Store(true)
	g.Wait()
	if answers.Load() == 0 {
		t.Error("nobody asked anything")
	}
}
