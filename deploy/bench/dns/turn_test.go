//go:build linux

package dns_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// turn asks one server: first as fast as it answers, then at a moderate rate. Where checked, dnsperf asks, too.
func turn(t *testing.T, s *server, kind string, questions []question, checked bool) figures {
	t.Helper()
	ask := func(l load) (*outcome, usage) {
		l.server, l.questions, l.cpu = s.addr, questions, *loaderCPU
		how := "full"
		if l.rate > 0 {
			how = "paced"
		}
		stop := s.record(t, kind+"-"+how)
		defer stop()
		before := s.used()
		o, err := l.run()
		if err == nil {
			err = o.wholly()
		}
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		return o, s.used().since(before)
	}
	// Less is under way than the system's buffers hold by default.
	o, u := ask(load{sockets: 16, window: 12, lasts: *lasts})
	f := figures{
		cpu: u.all.Seconds() * 1e6 / float64(o.answered), rate: float64(o.answered) / o.took.Seconds(),
		loss: float64(o.lost) / float64(o.sent), size: float64(o.bytes) / float64(o.answered),
	}
	f.user = f.cpu * float64(u.user) / float64(max(u.user+u.system, 1))
	if *pace > 0 {
		o, u = ask(load{sockets: 16, rate: *pace, lasts: *lasts})
		f.paced, f.pacedLoss = u.all.Seconds()*1e6/float64(o.answered), float64(o.lost)/float64(o.sent)
		f.p50, f.p99 = o.latency.quantile(0.5), o.latency.quantile(0.99)
	}
	if checked {
		f.perfCPU, f.perfRate = dnsperf(t, s, kind, questions)
	}
	return f
}

// dnsperf asks one server by that program, as a check of the loader.
func dnsperf(t *testing.T, s *server, kind string, questions []question) (cpu, rate float64) {
	path := lookup("dnsperf")
	if path == "" {
		return 0, 0
	}
	var b strings.Builder
	for _, q := range questions {
		fmt.Fprintln(&b, q.name, map[uint16]string{1: "A", 33: "SRV"}[q.qtype])
	}
	file := filepath.Join(t.TempDir(), "questions")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-c", fmt.Sprint(*loaderCPU), path, "-s", s.addr.Addr().String(), "-p", fmt.Sprint(s.addr.Port()), "-d", file, "-c", "16",
		"-T", "1", "-q", "192", "-l", fmt.Sprint(max(1, int(lasts.Seconds()))),
	}
	if kind == "SRV" {
		args = append(args, "-e")
	}
	before := s.used()
	out, err := exec.Command("taskset", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dnsperf: %v\n%s", err, out)
	}
	used := s.used().since(before)
	var completed, perSecond float64
	for line := range strings.SplitSeq(string(out), "\n") {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Queries completed":
			_, _ = fmt.Sscan(value, &completed)
		case "Queries per second":
			_, _ = fmt.Sscan(value, &perSecond)
		}
	}
	if completed == 0 {
		t.Fatalf("dnsperf: no answers\n%s", out)
	}
	return used.all.Seconds() * 1e6 / completed, perSecond
}

// record has perf record starling under a load, where a folder for that is named.
func (s *server) record(t *testing.T, name string) (stop func()) {
	t.Helper()
	if *profile == "" || s.name != "starling" {
		return func() {}
	}
	out := filepath.Join(*profile, name+".perf")
	c := exec.Command("perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-g", "-p", fmt.Sprint(s.cmd.Process.Pid), "-o", out)
	if err := c.Start(); err != nil {
		t.Fatalf("cannot record: %v", err)
	}
	return func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait() // ends by the signal
	}
}
