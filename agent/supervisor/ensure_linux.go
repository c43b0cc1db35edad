package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// readyWord is what a supervisor writes when it serves. Anything else is why it does not.
const readyWord = "ready\n"

// Ensure connects to the supervisor of a folder, and starts one if none answers. What it starts has its own session,
// is no child of the caller, and holds none of its files: it outlives the caller however that ends. Without a deadline
// in ctx it gives up after ten seconds.
func Ensure(ctx context.Context, cfg Config) (*Client, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	dir, err := prepareDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		c, err := Dial(ctx, dir)
		if err == nil {
			return c, nil
		}
		if ctx.Err() == nil {
			started := launch(ctx, dir, &cfg)
			if started == nil {
				continue
			}
			// One that is there and does not answer yet, or ends at this moment: ask again.
			if !errors.Is(started, errBusy) {
				return nil, started
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("supervisor of %q does not answer: %w", dir, err)
		case <-time.After(pause):
		}
	}
}

// launch runs the command with --detach: that process starts the supervisor proper and ends when it serves, so that the
// supervisor is nobody's child.
func launch(ctx context.Context, dir string, cfg *Config) error {
	if len(cfg.Command) == 0 || !filepath.IsAbs(cfg.Command[0]) {
		return fmt.Errorf("%w: the command %q of the supervisor is not an absolute path", ErrInvalid, cfg.Command)
	}
	args := append(slices.Clone(cfg.Command[1:]), "--detach", "--dir="+dir, "--idle-exit="+cfg.IdleExit.String())
	if len(cfg.Cgroups) > 0 {
		args = append(args, "--cgroup="+strings.Join(cfg.Cgroups, ","))
	}
	cmd := exec.CommandContext(ctx, cfg.Command[0], args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitBusy {
		return errBusy
	}
	if err != nil {
		return fmt.Errorf("cannot start the supervisor: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// detach starts a process with the same command line but --detach, in a session of its own, and waits until it serves.
func detach(o *options, args []string) error {
	dir, err := prepareDir(o.dir)
	if err != nil {
		return err
	}
	log, err := openLog(dir)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	tell, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer tell.Close()
	defer told.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := os.Stat(exe); err != nil {
		// The file was replaced since we were started from it.
		exe = "/proc/self/exe"
	}
	// What stands before the flags of Main is the way to get to Main.
	argv := slices.Clone(os.Args[:max(len(os.Args)-len(args), 1)])
	for _, arg := range args {
		if name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "="); name != "detach" {
			argv = append(argv, arg)
		}
	}
	argv = append(argv, "--ready-fd=3")
	process, err := os.StartProcess(exe, argv, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, log, log, told},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("cannot start the supervisor: %w", err)
	}
	told.Close()
	word, err := io.ReadAll(tell)
	if err != nil {
		return err
	}
	if string(word) == readyWord {
		return process.Release()
	}
	state, err := process.Wait()
	if err != nil {
		return err
	}
	if state.ExitCode() == exitBusy {
		return errBusy
	}
	return fmt.Errorf("%s (%v)", word, state)
}
