package hosts

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// member is what the tests read of a line of "mesh members -o json".
type member struct {
	Name, State, Address string
	Version              uint64
	Roles                []string
	Tasks                int
	Self                 bool
	Leader               *struct{ Epoch int }
	Free                 *struct{ CPUs float64 }
}

// command runs the binary as a person would, and returns what it printed and its exit code.
func command(t testing.TB, args ...string) (out, errs string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// meshMembers waits until the node at an address sees n members alive, and returns them.
func meshMembers(t testing.TB, agent string, n int) []member {
	t.Helper()
	var list []member
	Eventually(t, 30*time.Second, fmt.Sprintf("%s sees %d members alive", agent, n), func() error {
		out, errs, code := command(t, "mesh", "members", "--agent", agent, "-o", "json")
		if code != 0 {
			return fmt.Errorf("exit code %d: %s", code, errs)
		}
		list = nil
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		alive := 0
		for _, m := range list {
			if m.Name == "" || m.Address == "" || m.Version == 0 || len(m.Roles) == 0 {
				return fmt.Errorf("a member lacks something: %+v", m)
			}
			if m.State == "alive" {
				alive++
			}
		}
		if alive != n || len(list) != n {
			return fmt.Errorf("it sees %+v", list)
		}
		return nil
	})
	return list
}

func TestMeshIsSeenFromEachRole(t *testing.T) {
	r := Separate(t, 2)
	const ip = "127.0.0.4"
	dnsHTTP := fmt.Sprintf("%s:%d", ip, FreePort(t, ip))
	agent := strings.TrimSuffix(strings.TrimPrefix(r.agentHealth[0], "http://"), "/health")
	master := strings.TrimPrefix(r.Master, "http://")
	seed := ""
	for _, m := range meshMembers(t, agent, 3) {
		if m.Self {
			seed = m.Address
		}
	}
	Start(t, "http://"+dnsHTTP+"/health", "dns", "dns", "--ip", ip, "--work-dir", t.TempDir(), fmt.Sprint("--mesh-port=", FreePort(t, ip)),
		fmt.Sprint("--dns-port=", FreePort(t, ip)), "--dns-http-port="+dnsHTTP[len(ip)+1:], "--join", seed, "--no-discover", "--mesh-profile=local")

	var names []string
	for _, asked := range []string{agent, master, dnsHTTP} {
		var roles map[string]int
		var names2 []string
		// A record may come in parts.
		Eventually(t, 30*time.Second, asked+" has all of their records", func() error {
			roles, names2 = map[string]int{}, nil
			for _, m := range meshMembers(t, asked, 4) {
				roles[m.Roles[0]]++
				names2 = append(names2, m.Name)
				if (m.Roles[0] == "agent") != (m.Free != nil && m.Free.CPUs == 2) || (m.Roles[0] == "master") != (m.Leader != nil && m.Leader.Epoch > 0) {
					return fmt.Errorf("it says %+v", m)
				}
			}
			return nil
		})
		if roles["agent"] != 2 || roles["master"] != 1 || roles["dns"] != 1 {
			t.Errorf("%s sees roles %v", asked, roles)
		}
		if names == nil {
			names = names2
		}
		if fmt.Sprint(names) != fmt.Sprint(names2) {
			t.Errorf("%s sees %v, another one %v", asked, names2, names)
		}
	}

	// As a table: a line a member below the header, and none of it moves the terminal.
	out, errs, code := command(t, "mesh", "members", "--master", master)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 5 || !strings.HasPrefix(lines[0], "NAME ") || strings.Contains(out, "\x1b") {
		t.Errorf("code %d, %s\n%s", code, errs, out)
	}
	for _, name := range names {
		if out, errs, code := command(t, "mesh", "get", name, "--agent", agent); code != 0 || !strings.Contains(out, "NAME      "+name) || !strings.Contains(out, "\nnode ") {
			t.Errorf("get %s: code %d, %s\n%s", name, code, errs, out)
		}
	}
	// Probes have to pass first, so it takes a moment.
	Eventually(t, 60*time.Second, "the distance is known", func() error {
		out, errs, code := command(t, "mesh", "rtt", names[0], names[1], "--agent", agent)
		if code != 0 || !regexp.MustCompile(`^[0-9]+\.[0-9]+ ms\n$`).MatchString(out) {
			return fmt.Errorf("code %d, %q %q", code, out, errs)
		}
		return nil
	})

	// One that was killed is seen dead.
	r.Agents[1].Kill()
	Eventually(t, 60*time.Second, "the killed agent is dead", func() error {
		out, _, _ := command(t, "mesh", "members", "--agent", dnsHTTP, "-o", "json")
		var list []member
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		for _, m := range list {
			if m.State == "dead" && m.Roles[0] == "agent" {
				return nil
			}
		}
		return fmt.Errorf("it sees %+v", list)
	})
	r.Agents[1].run()
	r.Agents[1].Healthy(r.agentHealth[1])
}

func TestMeshCommandsExplainWhatIsWrong(t *testing.T) {
	c, _ := Dev(t)
	master := strings.TrimPrefix(c.Master, "http://")
	dead := fmt.Sprintf("127.0.0.9:%d", FreePort(t, "127.0.0.9"))
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"members", "--agent", dead}, 1, "cannot reach " + dead + " (connection refused)"},
		{[]string{"get", "nobody", "--master", master}, 1, `no node "nobody" is known here`},
		{[]string{"rtt", "nobody", "--master", master}, 1, `no node "nobody" is known here`},
		{[]string{"memers"}, 2, "did you mean members?"},
		{[]string{"members", "--agnet", "x"}, 2, "did you mean --agent?"},
		{[]string{"members", "--agent", strings.TrimPrefix(c.Marathon, "http://")}, 1, "answers 404"},
	} {
		out, errs, code := command(t, append([]string{"mesh"}, tc.args...)...)
		if code != tc.code || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: code %d, %q %q; want %d and one line with %q", tc.args, code, out, errs, tc.code, tc.want)
		}
	}
	for _, args := range [][]string{{"mesh", "--help"}, {"mesh", "members", "--help"}, {"help"}} {
		if out, errs, code := command(t, args...); code != 0 || errs != "" || !strings.Contains(out, "mesh") {
			t.Errorf("%q: code %d, %q %q", args, code, out, errs)
		}
	}
}

func TestMeshWatchSeesTasksComeAndGo(t *testing.T) {
	c, p := Dev(t)
	meshMembers(t, strings.TrimPrefix(c.Master, "http://"), 2) // what the watch begins with
	watch := exec.Command(binary, "mesh", "watch", "--master", c.Master, "-o", "json")
	pipe, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	lines := make(chan string, 1024)
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
		ended <- watch.Wait()
	}()
	t.Cleanup(func() { _ = watch.Process.Kill() })
	await := func(what string, is func(e map[string]any) bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		var seen []string
		for {
			select {
			case line, ok := <-lines:
				var e map[string]any
				if !ok || json.Unmarshal([]byte(line), &e) != nil {
					t.Fatalf("waiting for %s: %q after %q", what, line, seen)
				}
				if is(e) {
					return
				}
				seen = append(seen, line)
			case <-deadline:
				t.Fatalf("no %s; seen %q", what, seen)
			}
		}
	}
	await("beginning", func(e map[string]any) bool { return e["what"] == "begin" && e["nodes"] == 2.0 })
	c.ProbeApp("/probe", 1)
	key := ""
	await("running task", func(e map[string]any) bool {
		says, _ := e["summary"].(string)
		key, _ = e["key"].(string)
		return e["what"] == "set" && strings.HasPrefix(key, "task/") && strings.Contains(says, "TASK_RUNNING") && strings.Contains(says, "probe")
	})
	if _, _, err := Request("DELETE", c.Marathon+"/v2/apps/probe", ""); err != nil {
		t.Fatal(err)
	}
	await("end of the task", func(e map[string]any) bool { return e["what"] == "delete" && e["key"] == key })

	// Ctrl-C is the way to end it.
	if err := watch.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("watch ended with %v after Ctrl-C, want 0", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("watch does not end with Ctrl-C")
	}
	// A role with an open watch still ends in time, and the watch says why it ends.
	second := exec.Command(binary, "mesh", "watch", "--master", c.Master)
	var out, errs output
	second.Stdout, second.Stderr = &out, &errs
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 30*time.Second, "the second watch begins", func() error {
		if !strings.Contains(out.String(), "changes from here on") {
			return fmt.Errorf("it prints %q", out.String())
		}
		return nil
	})
	p.Terminate()
	if err := second.Wait(); second.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "ended the stream") {
		t.Errorf("watch of a node that stopped: %v, %q", err, errs.String())
	}
}
