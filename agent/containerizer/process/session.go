package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
)

// sessionsMax bounds the sessions at a time: each holds a thread and a few files of the agent.
const sessionsMax = 256

// Exec starts a process beside the first one of a container: in its cgroups, as its user, in its folder and with its
// environment as these were when the container began. It is a child of the agent, and ends with it.
func (c *Containerizer) Exec(ctx context.Context, id string, process containerizer.Process) (containerizer.Session, error) {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	k, ended := e.known, e.told || e.known.Exit != nil
	c.mu.Unlock()
	if ended || k.PID <= 0 {
		return nil, fmt.Errorf("container %q has ended", id)
	}
	entry, err := entryOf(k, process)
	if err != nil {
		return nil, err
	}
	select {
	case c.sessions <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d processes are talked to already", sessionsMax)
	}
	release := sync.OnceFunc(func() { <-c.sessions })
	s, err := c.startSession(ctx, id, entry, process, release)
	if err != nil {
		release()
		return nil, err
	}
	return s, nil
}

// entryOf says how a process gets into a container. What the first process of that is now stands in for what is not kept.
func entryOf(k supervisor.Container, process containerizer.Process) (*supervisor.Entry, error) {
	proc := "/proc/" + strconv.Itoa(k.PID)
	gone := func(err error) error { return fmt.Errorf("cannot enter container %q: %w", k.ID, err) }
	environ, err := environOf(proc)
	if err != nil {
		return nil, gone(err)
	}
	dir, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil {
		return nil, gone(err)
	}
	e := &supervisor.Entry{Args: process.Args, Dir: dir, Cgroups: k.Cgroups}
	e.Env = merge(strings.Split(strings.TrimRight(string(environ), "\x00"), "\x00"), process.Env)
	if process.User != "" {
		e.Credential, err = lookUser(process.User, os.Geteuid())
	} else {
		e.Credential, err = userOf(proc)
	}
	if err != nil {
		return nil, gone(err)
	}
	if handle, err := supervisor.OpenHandle(k.PID, k.Ticks); err != nil {
		return nil, gone(err) // what was read is of another process
	} else {
		handle.Close()
	}
	if e.Path, err = lookPath(&containerizer.Spec{Path: process.Path, Env: e.Env, Dir: dir}); err != nil {
		return nil, err
	}
	if len(e.Args) == 0 {
		e.Args = []string{process.Path}
	}
	return e, nil
}

// execLimit is how long a process is taken to be between two programs.
const execLimit = 500 * time.Millisecond

// environOf reads the environment of a process. One that becomes another program at this moment shows an empty one.
func environOf(proc string) ([]byte, error) {
	for deadline := time.Now().Add(execLimit); ; time.Sleep(time.Millisecond) {
		environ, err := os.ReadFile(filepath.Join(proc, "environ"))
		if err != nil || len(environ) > 0 || time.Now().After(deadline) {
			return environ, err
		}
	}
}

// merge adds variables to an environment; those that are added win.
func merge(env, more []string) []string {
	name := func(v string) string { n, _, _ := strings.Cut(v, "="); return n }
	replaced := map[string]bool{}
	for _, v := range more {
		replaced[name(v)] = true
	}
	env = slices.DeleteFunc(env, func(v string) bool { return v == "" || replaced[name(v)] })
	return append(env, more...)
}

// userOf reads who a process runs as; nil is whoever we are.
func userOf(proc string) (*supervisor.Credential, error) {
	data, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return nil, err
	}
	ids := func(name string, want int) []uint32 {
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, name+":"); ok {
				var out []uint32
				for _, f := range strings.Fields(rest) {
					if n, err := strconv.ParseUint(f, 10, 32); err == nil && (want == 0 || len(out) < want) {
						out = append(out, uint32(n))
					}
				}
				return out
			}
		}
		return nil
	}
	uid, gid := ids("Uid", 1), ids("Gid", 1)
	if len(uid) != 1 || len(gid) != 1 {
		return nil, fmt.Errorf("%s/status does not tell the user", proc)
	}
	if int(uid[0]) == os.Geteuid() {
		return nil, nil
	}
	return &supervisor.Credential{UID: uid[0], GID: gid[0], Groups: ids("Groups", 0)}, nil
}
