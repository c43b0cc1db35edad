package process

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// installed copies the test's program to a file in place of what is there, as a package manager does.
func installed(t *testing.T, path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestSupervisorBecomesTheAgentsProgram(t *testing.T) {
	n := newNode(t)
	program := filepath.Join(t.TempDir(), "starling")
	installed(t, program)
	n.cfg.Supervisor = []string{program}
	first, _ := n.begin()
	stays := launch(t, first, n.shell("stays", "exec sleep 1000"))
	launch(t, first, n.shell("ends", "while [ ! -e "+n.dir+"/go ]; do sleep 0.02; done; exit 9"))
	hello := func(c *Containerizer) (pid, generation int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		client, err := c.await(ctx)
		if err != nil {
			t.Fatal(err)
		}
		h, err := client.Hello(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return h.PID, h.Generation
	}
	pid, generation := hello(first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second, _ := n.begin()
	if p, g := hello(second); p != pid || g != generation {
		t.Errorf("without another program: process %d generation %d, want %d and %d", p, g, pid, generation)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	installed(t, program)
	third, x := n.begin()
	if p, g := hello(third); p != pid || g != generation+1 {
		t.Errorf("with another program: process %d generation %d, want %d and %d", p, g, pid, generation+1)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := x.await("ends"); !e.Known || e.Status != 9<<8 {
		t.Errorf("got %+v, want exit code 9", e)
	}
	if !alive(stays.PID) {
		t.Error("a container was harmed")
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}

	// A program that can't be one leaves everything as it is.
	if err := os.WriteFile(program+".new", []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	fourth, _ := n.begin()
	if p, g := hello(fourth); p != pid || g != generation+1 || !alive(stays.PID) {
		t.Errorf("with no program: process %d generation %d, want %d and %d", p, g, pid, generation+1)
	}
	if !strings.Contains(n.log.String(), "goes on with another program") {
		t.Error("nobody is told")
	}
	if err := fourth.Close(); err != nil {
		t.Fatal(err)
	}
	installed(t, program)
}
