package master_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// One round of a framework's life among many agents: an ACCEPT with one task, the launch call, the update, its
// acknowledgement, and the offer of what is left. Budget (design, section 10): an ACCEPT is answered in 10 ms with 10,000
// agents, and all of the master fits in 1 GiB; the heap includes the simulated agents here.
func BenchmarkAccept(b *testing.B) {
	for _, agents := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("agents=%d", agents), func(b *testing.B) {
			c := mastertest.Start(b, nil, func(cfg *master.Config) {
				cfg.Log = slog.New(slog.DiscardHandler)
				cfg.MaxStreamEvents, cfg.MaxStreamBytes = 1<<20, 1<<30
			})
			for n := range agents {
				a, err := mastertest.NewAgent(fmt.Sprintf("%s-S%d", mastertest.MasterID, n), fmt.Sprintf("10.%d.%d.1:5051", n/250, n%250), "cpus:64;mem:65536")
				if err != nil {
					b.Fatal(err)
				}
				c.Adopt(a)
			}
			c.Elect()
			for !c.Master.Standing().Leading {
				time.Sleep(time.Millisecond)
			}
			begun := time.Now()
			f := mastertest.Subscribe(b, c.Master, mastertest.Info("bench", nil))
			var offers []*mesos.Offer
			for len(offers) < agents {
				offers = append(offers, f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()...)
			}
			first := time.Since(begun)
			var accepts time.Duration
			rounds := 0
			b.ReportAllocs()
			for b.Loop() {
				offer := offers[0]
				offers = offers[1:]
				task := mastertest.Task(fmt.Sprint("t", rounds), "cpus:0.01;mem:1")
				task.AgentId = offer.GetAgentId()
				before := time.Now()
				f.Call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
					OfferIds: []*mesos.OfferID{offer.GetId()},
					Operations: []*mesos.Offer_Operation{{
						Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{task}},
					}},
					Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
				}})
				accepts += time.Since(before)
				rounds++
				for updated := false; !updated || len(offers) == 0; {
					event, err := f.Next(mastertest.Patience)
					if err != nil {
						b.Fatal(err)
					}
					switch event.GetType() {
					case scheduler.Event_UPDATE:
						f.Acknowledge(event.GetUpdate().GetStatus())
						updated = true
					case scheduler.Event_OFFERS:
						offers = append(offers, event.GetOffers().GetOffers()...)
					}
				}
			}
			b.ReportMetric(float64(first.Milliseconds()), "ms-first-offers")
			b.ReportMetric(float64(accepts.Microseconds())/float64(rounds), "µs/accept")
			var mem runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&mem)
			b.ReportMetric(float64(mem.HeapInuse)/(1<<20), "MiB-heap")
		})
	}
}
