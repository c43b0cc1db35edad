//go:build linux && cgo

package libct

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"starling/agent/containerizer"
	"starling/agent/testenv"
)

// BenchmarkStart is the time from Launch until the process runs, and how many start a second, one at a time and eight at
// once: plain processes, containers on the node's files, containers with an image, and the same image by `runc run -d`
// of the distribution with the same filter of system calls, in the same run. STARLING_BENCH_BINARY names the program that
// is launcher and supervisor: the test binary would do, but is another. It should not lie in a folder that holds the
// temporary one, or it is copied for each start. Budget: a container takes no longer than runc.
func BenchmarkStart(b *testing.B) {
	for _, at := range []int{1, 8} {
		for _, kind := range []string{"plain", "node", "image", "runc"} {
			b.Run(fmt.Sprintf("%s-%d", kind, at), func(b *testing.B) {
				n := newNode(b)
				if exe := os.Getenv("STARLING_BENCH_BINARY"); exe != "" {
					n.sv.Supervisor, n.sv.Env = []string{exe, "supervisor"}, nil
					n.cfg.Launcher = []string{exe, "container"}
				}
				images := n.withBusybox()
				var start func(id string) func()
				if kind == "runc" {
					start = runcStart(b, n, images)
				} else {
					c, x := n.begin()
					start = func(id string) func() {
						spec := n.shell(id, "exec sleep 1000")
						spec.Path, spec.Args, spec.Stdout, spec.Stderr = "sleep", []string{"sleep", "1000"}, "", ""
						spec.Limits = containerizer.Limits{CPUs: 0.1, MemBytes: 64 << 20}
						switch kind {
						case "plain":
							spec.Container = nil
						case "image":
							spec.Container.Mesos = busyboxImage()
						}
						if _, err := c.Launch(b.Context(), spec); err != nil {
							b.Fatal(err)
						}
						return func() {
							if err := c.Destroy(b.Context(), id); err != nil {
								b.Error(err)
							}
							x.await(id)
							if err := c.Remove(b.Context(), id); err != nil {
								b.Error(err)
							}
						}
					}
				}
				var mu sync.Mutex
				var took []time.Duration
				var all time.Duration
				round := 0
				for b.Loop() {
					var wg sync.WaitGroup
					ends := make([]func(), at)
					begin := time.Now()
					for i := range at {
						wg.Go(func() {
							begin := time.Now()
							ends[i] = start(fmt.Sprintf("b%d-%d", round, i))
							mu.Lock()
							defer mu.Unlock()
							took = append(took, time.Since(begin))
						})
					}
					wg.Wait()
					all += time.Since(begin)
					b.StopTimer()
					for _, end := range ends {
						wg.Go(end)
					}
					wg.Wait()
					round++
					b.StartTimer()
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/1e6, "ms-median")
				b.ReportMetric(float64(took[len(took)*99/100])/1e6, "ms-p99")
				b.ReportMetric(float64(len(took))/all.Seconds(), "starts/s")
			})
		}
	}
}

// runcStart starts containers of the image by runc, each on an overlay of its own, as whoever uses it has to.
func runcStart(b *testing.B, n *node, images *fakeImages) func(id string) func() {
	runc, err := exec.LookPath("runc")
	if err != nil {
		testenv.Lacks(b, "needs runc")
	}
	run := func(args ...string) {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	b.Cleanup(func() {
		_ = exec.Command("find", "/sys/fs/cgroup", "-depth", "-type", "d", "-name", cgroupName(n.sv.Dir), "-exec", "rmdir", "{}", ";").Run()
	})
	return func(id string) func() {
		dir := filepath.Join(n.dir, "runc-"+id)
		for _, name := range []string{"rootfs", "upper", "work"} {
			if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		run("mount", "-t", "overlay", "overlay", "-o",
			fmt.Sprintf("lowerdir=%s:%s,upperdir=%s/upper,workdir=%s/work", images.layers[0], images.layers[1], dir, dir), dir+"/rootfs")
		spec := exec.Command(runc, "spec")
		spec.Dir = dir
		if out, err := spec.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(dir + "/config.json")
		if err != nil {
			b.Fatal(err)
		}
		var config map[string]any
		if err := json.Unmarshal(text, &config); err != nil {
			b.Fatal(err)
		}
		process := config["process"].(map[string]any)
		process["terminal"], process["args"] = false, []string{"sleep", "1000"}
		linux := config["linux"].(map[string]any)
		if seccompBuiltIn {
			if linux["seccomp"], err = seccomp.GetDefaultProfile(&specs.Spec{
				Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: defaultCapabilities}},
			}); err != nil {
				b.Fatal(err)
			}
		}
		linux["cgroupsPath"] = "/" + cgroupName(n.sv.Dir) + "/" + id
		if text, err = json.Marshal(config); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(dir+"/config.json", text, 0o600); err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(runc, "--root", filepath.Join(n.dir, "runc"), "run", "-d", "-b", dir, id)
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		return func() {
			run(runc, "--root", filepath.Join(n.dir, "runc"), "delete", "-f", id)
			run("umount", dir+"/rootfs")
		}
	}
}
