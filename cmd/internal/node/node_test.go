package node

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/sandbox"
	"starling/cmd/internal/flags"
	"starling/master/mesos"
)

func TestIdentitySurvivesAndIsChecked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "master-id")
	first, err := identity(dir, "master-id", newMasterID)
	if err != nil || !validUUID(first) {
		t.Fatalf("identity = %q, %v; want a UUID", first, err)
	}
	if again, err := identity(dir, "master-id", newMasterID); err != nil || again != first {
		t.Errorf("identity = %q, %v the second time; want %q", again, err, first)
	}
	for _, damage := range []string{"", "\n", "garbage", first[:20], first + first, "\x00\x00", strings.ReplaceAll(first, "-", "")} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := identity(dir, "master-id", newMasterID); err == nil || !strings.Contains(err.Error(), "remove it") || !strings.Contains(err.Error(), path) {
			t.Errorf("identity = %q, %v out of %q, want an error that says what to do: a new id would shadow the old node", id, err, damage)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if id, err := identity(dir, "master-id", newMasterID); err != nil || id == first || !validUUID(id) {
		t.Errorf("identity = %q, %v after the file was removed as the error says, want a new one", id, err)
	}
}

// TestAnAgentKeepsItsIdentity holds D5 for what an agent is called.
func TestAnAgentKeepsItsIdentity(t *testing.T) {
	const other = "00000000-1111-2222-3333-444444444444-S7"
	write := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep := func(*testing.T, string) {}
	remove := func(t *testing.T, path string) {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	folder := func(t *testing.T, path string) {
		t.Helper()
		remove(t, path)
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	type left int
	const (
		nothing     left = iota // no task, no sandbox
		task                    // the checkpoint of a task that reads
		sandboxOnly             // a checkpoint that does not read, and a sandbox
		spoiled                 // a checkpoint that does not read
		container               // a record of the supervisor
		two                     // checkpoints of tasks of two agents
	)
	for _, tc := range []struct {
		name           string
		file, identity func(*testing.T, string)
		left           left
		want           string // same, new, or a part of the error
		says           string
	}{
		{"all is well", keep, keep, task, "same", ""},
		{"an empty file", write(""), keep, task, "same", "repaired"},
		{"garbage in the file", write("no/id \x00"), keep, task, "same", "repaired"},
		{"half a file", write(other[:17]), keep, nothing, "same", "repaired"},
		{"a file with another id", write(other), keep, task, "same", "repaired"},
		{"no file", remove, keep, task, "same", "repaired"},
		{"a folder in its place", folder, keep, task, "same", "cannot write the copy"},
		{"no checkpoints", keep, remove, nothing, "same", ""},
		{"an identity that does not read", keep, write("garbage"), task, "same", ""},
		{"neither, and tasks name it", write(""), write(""), task, "same", "what is left of its tasks"},
		{"neither, and a sandbox names it", remove, remove, sandboxOnly, "same", "what is left of its tasks"},
		{"neither, and nothing is left", write("x"), write("x"), nothing, "new", "did not read"},
		{"a new folder", remove, remove, nothing, "new", ""},
		{"neither, and a task names nobody", write(""), write(""), spoiled, "id is lost", ""},
		{"neither, and a container runs", remove, remove, container, "id is lost", ""},
		{"neither, and tasks name two", remove, write(""), two, other, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			var said strings.Builder
			log := slog.New(slog.NewTextHandler(&said, nil))
			first, err := agentIdentity(dir, log)
			if err != nil || !validAgentID(first) || said.Len() > 0 {
				t.Fatalf("identity = %q, %v, said %q; want a new one without a word", first, err, said.String())
			}
			store, _, err := checkpoint.Open(metaDir(dir), checkpoint.Options{AgentID: first})
			if err != nil {
				t.Fatal(err)
			}
			put := func(container, agent string) {
				task := &checkpoint.Task{ContainerId: container, Task: &mesos.TaskInfo{
					Name: proto.String("t"), TaskId: &mesos.TaskID{Value: proto.String("t")}, AgentId: &mesos.AgentID{Value: &agent},
				}}
				if err := errors.Join(store.Commit([]checkpoint.Change{checkpoint.PutTask(task)})...); err != nil {
					t.Fatal(err)
				}
			}
			switch tc.left {
			case nothing:
			case task:
				put("c1", first)
			case two:
				put("c1", first)
				put("c2", other)
			case spoiled, sandboxOnly:
				write("garbage")(t, filepath.Join(metaDir(dir), "tasks", "c1.task"))
				if tc.left == sandboxOnly {
					if err := sandbox.New(dir, first).Init(); err != nil {
						t.Fatal(err)
					}
				}
			case container:
				if err := os.MkdirAll(filepath.Join(supervisorDir(dir), "containers"), 0o700); err != nil {
					t.Fatal(err)
				}
				write("garbage")(t, filepath.Join(supervisorDir(dir), "containers", "c1.c"))
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			tc.file(t, filepath.Join(dir, "agent-id"))
			tc.identity(t, filepath.Join(metaDir(dir), "identity"))

			id, err := agentIdentity(dir, log)
			switch {
			case tc.want == "same" && (err != nil || id != first):
				t.Fatalf("identity = %q, %v; want %q", id, err, first)
			case tc.want == "new" && (err != nil || id == first || !validAgentID(id)):
				t.Fatalf("identity = %q, %v; want a new one", id, err)
			case tc.want != "same" && tc.want != "new":
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("identity = %q, %v; want an error with %q", id, err, tc.want)
				}
				// What the error advises works.
				remove(t, filepath.Join(dir, "agent-id"))
				write(first+"\n")(t, filepath.Join(dir, "agent-id"))
				if id, err := agentIdentity(dir, log); err != nil || id != first {
					t.Errorf("identity = %q, %v after it was named; want %q", id, err, first)
				}
				return
			}
			if !strings.Contains(said.String(), tc.says) || tc.says == "" && said.Len() > 0 {
				t.Errorf("said %q, want %q", said.String(), tc.says)
			}
			// And the checkpoints take it: the agent starts.
			store, _, err = checkpoint.Open(metaDir(dir), checkpoint.Options{AgentID: id})
			if err != nil {
				t.Fatalf("checkpoints: %v", err)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			if again, err := agentIdentity(dir, log); err != nil || again != id {
				t.Errorf("identity = %q, %v the next time; want %q", again, err, id)
			}
		})
	}
}

func TestPortsMoveAsideOnlyWhenTheyMay(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if l, _, err := listen("tests", "127.0.0.1", port, false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen on a taken port = %v, %v; want EADDRINUSE", l, err)
	}
	l, got, err := listen("tests", "127.0.0.1", port, true)
	if err != nil || got == port {
		t.Fatalf("listen aside = %d, %v; want another port", got, err)
	}
	defer l.Close()
	both, dnsPort, err := listenDNS("127.0.0.1", port, true)
	if err != nil || dnsPort == port || dnsPort == got {
		t.Fatalf("listenDNS aside = %d, %v; want a third port", dnsPort, err)
	}
	both.Close()
}

func TestPlaceOnTheLoopbackNetworkIsItsOwnName(t *testing.T) {
	dir := t.TempDir()
	c := common{ip: "127.0.0.2", hostnameLookup: true, workDir: flags.Path(filepath.Join(dir, "deep", "er")), stderr: io.Discard}
	p, err := c.resolve()
	if err != nil || p.address != "127.0.0.2" || p.hostname != "127.0.0.2" || p.bind != "127.0.0.2" {
		t.Errorf("resolve = %+v, %v", p, err)
	}
	if _, err := os.Stat(p.dir); err != nil {
		t.Errorf("the work folder was not made: %v", err)
	}
	c = common{ip: "127.0.0.2", advertiseIP: "192.0.2.1", hostname: "edge1", hostnameLookup: true, workDir: flags.Path(dir)}
	if p, err = c.resolve(); err != nil || p.bind != "127.0.0.2" || p.address != "192.0.2.1" || p.hostname != "edge1" {
		t.Errorf("resolve = %+v, %v", p, err)
	}
	for _, wrong := range []common{{advertiseIP: "0.0.0.0"}, {advertiseIP: "::"}, {hostname: "a b"}, {hostname: "a/b"}, {hostname: "a\r\nb"}} {
		wrong.ip, wrong.workDir = "127.0.0.2", flags.Path(dir)
		var usage *UsageError
		if p, err := wrong.resolve(); !errors.As(err, &usage) {
			t.Errorf("with %q and %q, resolve = %+v, %v", wrong.advertiseIP, wrong.hostname, p, err)
		}
	}
	c.hostname, c.hostnameLookup = "", false
	if p, err = c.resolve(); err != nil || p.hostname != "192.0.2.1" {
		t.Errorf("without looking up a name, resolve = %+v, %v", p, err)
	}
}
