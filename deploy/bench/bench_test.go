// Package bench_test measures, on the real binary, what the project promises. Each benchmark names its budget. The figures
// are those of one machine at one time: compare them within one run, or with a peer measured beside them.
package bench_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/deploy/hosts"
)

func TestMain(m *testing.M) { os.Exit(hosts.Main(m)) }

// pss is the memory of a process in KiB, what it shares with others counted in part.
func pss(b *testing.B, pid int) (pssKiB, rssKiB float64) {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		v, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Pss:":
			pssKiB = v
		case "Rss:":
			rssKiB = v
		}
	}
	return pssKiB, rssKiB
}

// cpu is the processor time that a process has used.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// supervisors finds the supervisor processes below a folder.
func supervisors(b *testing.B, dir string) []int {
	b.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		data, err := os.ReadFile(e)
		if err == nil && bytes.Contains(data, []byte("supervisor\x00")) && bytes.Contains(data, []byte(dir)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func post(b *testing.B, c *hosts.Cluster, id string, instances int) {
	b.Helper()
	body := fmt.Sprintf(`{"id":%q,"cmd":"exec sleep 600","cpus":0.001,"mem":32,"disk":0,"instances":%d,"portDefinitions":[]}`, id, instances)
	if _, _, err := hosts.Request("POST", c.Marathon+"/v2/apps", body); err != nil {
		b.Fatal(err)
	}
	c.Running(id, instances)
}

// Budgets: 40 MiB or less for an idle agent with its DNS server; 64 KiB or less for one more running task outside of the
// task itself, in the agent and the supervisor together.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		r := hosts.Separate(b, 1)
		agent := r.Agents[0].PID()
		_, idle := pss(b, agent)
		b.ReportMetric(idle/1024, "agent-MiB-idle")
		var at100, at1000 float64
		of := func(tasks int) (sum float64) {
			p, rss := pss(b, agent)
			sum += p
			b.ReportMetric(rss/1024, fmt.Sprintf("agent-MiB-%d", tasks))
			for _, pid := range supervisors(b, r.AgentDirs[0]) {
				p, rss := pss(b, pid)
				sum += p
				b.ReportMetric(rss/1024, fmt.Sprintf("supervisor-MiB-%d", tasks))
			}
			return sum
		}
		of(0)
		post(b, r.Cluster, "/first", 100)
		at100 = of(100)
		post(b, r.Cluster, "/more", 900)
		at1000 = of(1000)
		b.ReportMetric((at1000-at100)/900, "KiB/task")
		b.ReportMetric(0, "ns/op")
	}
}

// Budget: 0.7 s or less from the scale request to 100 running tasks, with 1.2 s of CPU in all roles and the supervisor.
func BenchmarkScaleTo100(b *testing.B) {
	for b.Loop() {
		r := hosts.Separate(b, 1)
		post(b, r.Cluster, "/scale", 1)
		roles := map[string]int{"agent": r.Agents[0].PID(), "master": r.MasterProcess.PID(), "marathon": r.MarathonProcess.PID()}
		for _, pid := range supervisors(b, r.AgentDirs[0]) {
			roles["supervisor"] = pid
		}
		before := map[string]time.Duration{}
		for role, pid := range roles {
			before[role] = cpu(b, pid)
		}
		begin := time.Now()
		if _, _, err := hosts.Request("PUT", r.Marathon+"/v2/apps/scale", `{"instances":100}`); err != nil {
			b.Fatal(err)
		}
		hosts.Eventually(b, time.Minute, "100 tasks run", func() error {
			a, err := r.App("/scale")
			if err == nil && a.TasksRunning < 100 {
				err = fmt.Errorf("%d run", a.TasksRunning)
			}
			return err
		})
		b.ReportMetric(time.Since(begin).Seconds(), "s/100tasks")
		total := time.Duration(0)
		for role, pid := range roles {
			used := cpu(b, pid) - before[role]
			total += used
			b.ReportMetric(used.Seconds(), role+"-cpu-s")
		}
		b.ReportMetric(total.Seconds(), "cpu-s/100tasks")
		b.ReportMetric(0, "ns/op")
	}
}
