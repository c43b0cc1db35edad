package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// enter is the process: it returns only when it could not become the program.
func enter() int {
	in, out := os.NewFile(EnterInput, "entry"), os.NewFile(EnterErrors, "errors")
	unix.CloseOnExec(EnterErrors)
	err := enterBy(in)
	fmt.Fprint(out, err)
	return exitFailed
}

func enterBy(in *os.File) error {
	parent := os.Getppid()
	var wire entryWire
	if err := json.NewDecoder(in).Decode(&wire); err != nil {
		return fmt.Errorf("cannot read what to run: %w", err)
	}
	in.Close()
	for _, dir := range wire.Cgroups {
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(os.Getpid())); err != nil {
			return fmt.Errorf("cannot join the cgroup of the container: %w", cause(err))
		}
	}
	// Whoever started us may be protected from the OOM killer; this program is not to be.
	_ = setOOMScore(0)
	unix.Umask(0o022)
	if err := os.Chdir(string(wire.Dir)); err != nil {
		return fmt.Errorf("cannot use working directory %q: %w", wire.Dir, cause(err))
	}
	if c := wire.Credential; c != nil {
		groups := make([]int, len(c.Groups))
		for i, g := range c.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return fmt.Errorf("cannot become user %d: %w", c.UID, err)
		}
		if err := syscall.Setgid(int(c.GID)); err != nil {
			return fmt.Errorf("cannot become user %d: %w", c.UID, err)
		}
		if err := syscall.Setuid(int(c.UID)); err != nil {
			return fmt.Errorf("cannot become user %d: %w", c.UID, err)
		}
	}
	// The session does not outlive the agent. Becoming another user has cleared what was said before.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot be bound to the agent: %w", err)
	}
	if os.Getppid() != parent {
		return fmt.Errorf("the agent has ended")
	}
	spec := &Spec{Path: string(wire.Path), Dir: string(wire.Dir), Credential: wire.Credential}
	return explain(spec, syscall.Exec(string(wire.Path), wire.Args, wire.Env))
}
