package check

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

func newNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
}

func itoa(i int) string { return strconv.Itoa(i) }

// BenchmarkLoad checks 2,000 tasks for ten seconds with the usual times, of which the half never answers (an attempt takes
// all of its 20 s): so many begin a second as in the middle of a long day. Reported is what that costs of a processor, the
// servers that answer included. Budget: half a processor, and no healthy task failed.
func BenchmarkLoad(b *testing.B) {
	ns := elsewhere(b)
	good := listen(b, ns, "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	stuck := listen(b, ns, "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	for _, bb := range []struct {
		name string
		spec func(healthy bool) Spec
	}{
		{"http", func(healthy bool) Spec {
			port := stuck
			if healthy {
				port = good
			}
			return Spec{Kind: HTTP, Scheme: "http", Path: "/", Port: port}
		}},
		{"command", func(healthy bool) Spec {
			text := "exec sleep 1000"
			if healthy {
				text = "exit 0"
			}
			return Spec{Kind: Command, Command: &mesos.CommandInfo{Value: proto.String(text)}}
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const tasks, lasting = 2000, 10 * time.Second
			p := &Prober{Namespace: ns, Dir: b.TempDir(), Env: []string{"PATH=/usr/bin:/bin"}}
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), lasting)
				var wg sync.WaitGroup
				var failed, attempts, most atomic.Int64
				before, begun := spent(b), time.Now()
				for i := range tasks {
					s := bb.spec(i%2 == 0)
					s.Interval, s.Timeout = 10*time.Second, 20*time.Second
					s.Delay = time.Duration(i) * lasting / tasks
					if i%2 == 1 {
						// Every 30 s, of which it hangs for 20.
						s.Delay *= 3
					}
					wg.Go(func() {
						Run(ctx, s, 0, p.Probe, func(r Result) {
							attempts.Add(1)
							if i%2 == 0 && !r.Healthy {
								failed.Add(1)
							}
							most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
						})
					})
				}
				wg.Wait()
				cancel()
				b.ReportMetric((spent(b)-before).Seconds()/time.Since(begun).Seconds(), "cores")
				b.ReportMetric(float64(failed.Load()), "false-failures")
				b.ReportMetric(float64(attempts.Load()), "attempts")
				b.ReportMetric(float64(most.Load())/tasks, "goroutines/check")
			}
		})
	}
}

// spent is the time of processors that this process and its children have used.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
