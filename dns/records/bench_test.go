package records

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/miekg/dns"
)

// marathonTask is a task as Marathon makes them: an app in a group, with an address and a port of its own.
func marathonTask(app, instance int) *Task {
	agent := (app*7 + instance) % 250
	name := fmt.Sprintf("app%d.group%d", app, app%20)
	return &Task{
		ID: fmt.Sprintf("group%d_app%d.instance-0e4fa1c2-a%07x-11f0-b3d7-%012x._app.1", app%20, app, app, instance), Name: name, Framework: "marathon",
		AgentID: fmt.Sprintf("0e4fa1c2-7b1c-4a5c-9c57-6b2f6e2f2c11-S%d", agent), Agent: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(agent)})},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(app), byte(instance)})}, HostPorts: []uint16{uint16(31000 + instance)},
		Discovery: name, Ports: []Port{{uint16(31000 + instance), "http", "tcp"}},
	}
}

// marathonSource is the source of a task as a server names it.
func marathonSource(t *Task) string {
	return "node-" + t.AgentID[len(t.AgentID)-3:] + "\x00task/0e4fa1c2-7b1c-4a5c-9c57-6b2f6e2f2c11-0000/" + t.ID
}

func marathonZone(apps, instances int) *Zone {
	z := NewZone(DefaultConfig(), 1)
	for app := range apps {
		for i := range instances {
			t := marathonTask(app, i)
			z.ReplaceTask(marathonSource(t), t)
		}
	}
	return z
}

// sizes are apps and instances of each.
var sizes = [][2]int{{100, 10}, {1000, 10}, {10000, 1}}

func queryFor(tb testing.TB, name string, qtype uint16) []byte {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, false)
	query, err := q.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return query
}

// commonQuestions are those that the fast path is for; the app has ten instances where apps have.
func commonQuestions() map[string][2]any {
	t := marathonTask(57, 0)
	canonical := Sanitize(t.Name) + "-" + hash(t.ID) + "-" + agentSuffix(t.AgentID)
	return map[string][2]any{
		"A":        {canonical + ".marathon.mesos.", dns.TypeA},
		"A-all":    {t.Name + ".marathon.mesos.", dns.TypeA},
		"AAAA":     {canonical + ".marathon.mesos.", dns.TypeAAAA},
		"SRV":      {"_http._" + Sanitize(t.Name) + "._tcp.marathon.mesos.", dns.TypeSRV},
		"SOA":      {"mesos.", dns.TypeSOA},
		"NS":       {"mesos.", dns.TypeNS},
		"NXDOMAIN": {"nobody.marathon.mesos.", dns.TypeA},
		"NODATA":   {canonical + ".marathon.mesos.", dns.TypeTXT},
	}
}

// Budget: no allocation, and 300 ns of user time a query; at 10,000 tasks at most 10% more than at 1,000.
func BenchmarkAnswer(b *testing.B) {
	for _, size := range sizes {
		z := marathonZone(size[0], size[1])
		buf := make([]byte, maxUDP)
		for name, q := range commonQuestions() {
			query := queryFor(b, q[0].(string), q[1].(uint16))
			b.Run(fmt.Sprintf("%dx%d/%s", size[0], size[1], name), func(b *testing.B) {
				b.ReportAllocs()
				before := userTime()
				for i := uint32(0); b.Loop(); i++ {
					if z.Answer(query, buf, i) == nil {
						b.Fatal("no answer")
					}
				}
				b.ReportMetric(float64(userTime()-before)/float64(b.N), "user-ns/op")
			})
		}
	}
}

// Budget: 20 us of user time for all names of one changed task, also of one among a thousand of an app.
func BenchmarkReplaceTask(b *testing.B) {
	for _, instances := range []int{1, 10, 100, 1000} {
		z := marathonZone(10000/instances, instances)
		t := marathonTask(5, 0)
		source := marathonSource(t)
		b.Run(fmt.Sprintf("of-%d", instances), func(b *testing.B) {
			b.ReportAllocs()
			before := userTime()
			for i := 0; b.Loop(); i++ {
				// Another address changes eight names; going and coming changes all. In turns: gone, back, and moved, twice.
				switch i % 4 {
				case 0:
					z.ReplaceTask(source, nil)
				default:
					t.Addrs[0] = netip.AddrFrom4([4]byte{10, 201, byte(i), 1})
					z.ReplaceTask(source, t)
				}
			}
			b.ReportMetric(float64(userTime()-before)/float64(b.N), "user-ns/op")
		})
	}
}

// Budget: 2,500 octets a task, which is 25 MB for 10,000, in what is live and in what the process has more resident.
func BenchmarkMemory(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			var live, resident int64
			var names int
			for b.Loop() {
				debug.FreeOSMemory()
				before, held := liveHeap(), residentSet(b)
				z := marathonZone(size[0], size[1])
				resident = residentSet(b) - held
				live = liveHeap() - before
				names = z.Stats().Names
				runtime.KeepAlive(z)
			}
			tasks := float64(size[0] * size[1])
			b.ReportMetric(float64(live)/tasks, "live-B/task")
			b.ReportMetric(float64(resident)/tasks, "rss-B/task")
			b.ReportMetric(float64(names)/tasks, "names/task")
		})
	}
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// residentSet is how many octets of the process are in memory, 0 where the system does not say.
func residentSet(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
