package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"starling/gossip/api"
)

func TestTaskLogs(t *testing.T) {
	c := newCluster(t, nil)
	long := strings.Repeat(strings.Repeat("x", 999)+"\n", 200)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(c.sandbox, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("stdout", long+"one\ntwo\xff\nthree")
	write("stderr", "oops\n")
	c.want(Task, 0, long+"one\ntwo\xff\nthree", "", "logs", "web")
	c.want(Task, 0, "two\xff\nthree", "", "logs", "web", "--tail", "2")
	c.want(Task, 0, "", "", "logs", "web", "--tail=0")
	c.want(Task, 0, strings.Repeat("x", 999)+"\n"+"one\ntwo\xff\nthree", "", "logs", "web", "--tail=4")
	c.want(Task, 0, long+"one\ntwo\xff\nthree", "", "logs", "web", "--tail=1000")
	c.want(Task, 0, "oops\n", "", "logs", "--stderr", "web-1")
	c.want(Task, 1, "", "no master leads", "logs", "none")
	c.want(Task, 2, "", "expecting TASK", "logs")
	if err := os.Remove(filepath.Join(c.sandbox, "stderr")); err != nil {
		t.Fatal(err)
	}
	c.want(Task, 1, "", `the agent has no "stderr" of task "web-1"`, "logs", "--stderr", "web")
}

func TestTaskLogsOfATaskThatHasEnded(t *testing.T) {
	c := newCluster(t, nil)
	if err := os.WriteFile(filepath.Join(c.sandbox, "stdout"), []byte("bye\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	master := newNode(t)
	master.set("/tasks?limit=1000000", `{"tasks":[{"id":"web-1","name":"web","framework_id":"f1","executor_id":"","slave_id":"`+testAgent+`","state":"TASK_FINISHED"}]}`)
	c.tasks = nil
	c.members = append(c.members, api.Member{Name: "m", State: "alive", Leader: &api.Leader{Epoch: 2, Address: master.addr}})
	c.tell()
	c.want(Task, 0, "bye\n", "", "logs", "web")
	master.set("/frameworks", `{"frameworks":[{"id":"f0","name":"alive"}],"completed_frameworks":[{"id":"f1","name":"demo"}]}`)
	c.want(Task, 0, "bye\n", "", "logs", "--framework", "demo", "web")
	c.want(Task, 1, "", `no task "web" of framework "alive" is known`, "logs", "--framework", "alive", "web")
	c.want(Task, 0, "bye\n", "", "logs", "-f", "web") // it has ended, so there is nothing to follow
	c.want(Task, 125, "", `task "web-1" does not run: it is TASK_FINISHED`, "exec", "web", "--", "true")
}

// lines is a writer whose content a test waits for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestTaskLogsFollow(t *testing.T) {
	c := newCluster(t, nil)
	path := filepath.Join(c.sandbox, "stdout")
	write := func(flag int, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write(os.O_APPEND, "a long first line\n")
	out, ended := &lines{}, make(chan int, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		ended <- Task(ctx, Streams{Out: out, Err: io.Discard}, []string{"logs", "-f", "web", "--agent", c.mesh.addr}, nil)
	}()
	c.until("the first is told", func() bool { return out.String() == "a long first line\n" })
	write(os.O_APPEND, "two\n")
	c.until("what is appended is told", func() bool { return strings.HasSuffix(out.String(), "two\n") })
	write(os.O_TRUNC, "anew\n")
	c.until("it is read anew", func() bool { return strings.HasSuffix(out.String(), "anew\n") })
	c.tasks[0].State = "TASK_FINISHED"
	c.tell()
	if code := <-ended; code != 0 {
		t.Errorf("code %d at the end of the task", code)
	}
}

// TestTaskLogsFollowRotation has the agent put output aside, as it does, faster than it is read.
func TestTaskLogsFollowRotation(t *testing.T) {
	c := newCluster(t, nil)
	at := func(name string) string { return filepath.Join(c.sandbox, name) }
	must := func(err error) {
		t.Helper()
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	written, current := "", ""
	write := func(text string) {
		written, current = written+text, current+text
		must(os.WriteFile(at("stdout"), []byte(current), 0o644))
	}
	rotate := func(n int) {
		must(os.WriteFile(at(".stdout.rotating"), []byte(current[:n]), 0o644))
		current = current[n:]
		must(os.WriteFile(at("stdout"), []byte(current), 0o644))
		must(os.Rename(at("stdout.2"), at("stdout.3")))
		must(os.Rename(at("stdout.1"), at("stdout.2")))
		must(os.Rename(at(".stdout.rotating"), at("stdout.1")))
	}
	f := &remoteFile{client: newClient(nil).at(c.addr)}
	defer f.client.close()
	must(f.find(t.Context(), &c.tasks[0], "stdout"))
	var out bytes.Buffer
	copied := func(what string) {
		t.Helper()
		if err := f.copy(t.Context(), &out); err != nil || out.String() != written {
			t.Fatalf("%s: %v, got %q, want %q", what, err, out.String(), written)
		}
	}
	write("one two ")
	copied("the beginning")
	rotate(4)
	copied("only what was read was put aside")
	write("three four five ")
	rotate(12)
	write("six seven eight nine ten ")
	copied("what was not read was put aside, and the file is longer than before")
	write("eleven ")
	rotate(9)
	rotate(11)
	write("twelve ")
	copied("twice at once")
	write("thirteen ")
	for i := range 4 {
		rotate(3 + i)
	}
	if err := f.copy(t.Context(), &out); !errors.Is(err, errGone) {
		t.Errorf("got %v after what had been removed", err)
	}
}
