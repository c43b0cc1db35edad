//go:build linux

package dns_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program under test with its children, all on one processor.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start runs a program on the servers' processor until the end of the test.
func start(t *testing.T, name, path string, args ...string) *process {
	t.Helper()
	p := &process{name: name, done: make(chan struct{})}
	args = append([]string{"taskset", "-c", strconv.Itoa(*serverCPU), path}, args...)
	if *first {
		args = append([]string{"chrt", "--rr", "1"}, args...)
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("cannot start %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- %s\n%s", name, p.output())
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			<-p.done
		}
	})
	return p
}

// family is the process and all below it.
func (p *process) family() []int {
	parents := map[int]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, e := range entries {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if fields := stat(e); len(fields) > 1 {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		for pid, parent := range parents {
			if parent == pids[i] {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// stat is the fields of a stat file behind the name of the program.
func stat(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

// usage is what a program has used of the processor.
type usage struct {
	all time.Duration
	// user and system are told in hundredths of a second, by the tick: they say how all of it divides.
	user, system time.Duration
}

func (p *process) used() usage {
	var u usage
	for _, pid := range p.family() {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, path := range threads {
			data, _ := os.ReadFile(path)
			if ns, _, ok := strings.Cut(string(data), " "); ok {
				n, _ := strconv.ParseInt(ns, 10, 64)
				u.all += time.Duration(n)
			}
		}
		if fields := stat(fmt.Sprintf("/proc/%d/stat", pid)); len(fields) > 12 {
			user, _ := strconv.ParseInt(fields[11], 10, 64)
			system, _ := strconv.ParseInt(fields[12], 10, 64)
			u.user += time.Duration(user) * 10 * time.Millisecond
			u.system += time.Duration(system) * 10 * time.Millisecond
		}
	}
	return u
}

func (u usage) since(before usage) usage {
	return usage{u.all - before.all, u.user - before.user, u.system - before.system}
}

// resident is the memory of the program with its children in MiB, what they share counted once.
func (p *process) resident() float64 {
	kib := 0.0
	for _, pid := range p.family() {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.SplitSeq(string(data), "\n") {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
				v, _ := strconv.ParseFloat(fields[1], 64)
				kib += v
			}
		}
	}
	return kib / 1024
}

// lookup finds a program, also where only root looks; empty where it is not installed.
func lookup(program string) string {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
