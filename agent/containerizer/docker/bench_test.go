package docker

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"starling/agent/containerizer/docker/dockertest"
)

// BenchmarkStart is the time from Launch until the container runs, one at a time, beside the same by `docker run -d` on the
// same engine in the same run. Budget: no longer than the client takes.
func BenchmarkStart(b *testing.B) {
	for _, kind := range []string{"engine", "client"} {
		b.Run(kind, func(b *testing.B) {
			n := newNode(b, dockertest.Options{})
			c := n.open()
			if _, err := c.Recover(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			go func() {
				for range c.Exits() {
				}
			}()
			client := func(args ...string) {
				if out, err := exec.Command("docker", append([]string{"-H", "unix://" + n.engine.Socket}, args...)...).CombinedOutput(); err != nil {
					b.Fatalf("docker %v: %v: %s", args, err, out)
				}
			}
			var took []time.Duration
			for round := 0; b.Loop(); round++ {
				id := fmt.Sprintf("bench-%d", round)
				spec := n.run(id, "exec sleep 1000")
				began := time.Now()
				if kind == "engine" {
					if _, err := c.Launch(b.Context(), spec); err != nil {
						b.Fatal(err)
					}
				} else {
					client("run", "-d", "--net=host", "--pid=host", "--name", id, testImage, "sleep", "1000")
				}
				took = append(took, time.Since(began))
				b.StopTimer()
				if kind == "engine" {
					if err := c.Destroy(b.Context(), id); err != nil {
						b.Error(err)
					}
					for c.Remove(b.Context(), id) != nil {
						time.Sleep(time.Millisecond) // of asking until the exit was told
					}
				} else {
					client("rm", "-f", id)
				}
				b.StartTimer()
			}
			var all time.Duration
			for _, d := range took {
				all += d
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e6, "ms-median")
			b.ReportMetric(float64(len(took))/all.Seconds(), "starts/s")
		})
	}
}
