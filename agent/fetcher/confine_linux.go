package fetcher

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// confine leaves this process, for good, the sandbox, the files that it is to copy, and what the resolver of names reads. A
// kernel without Landlock leaves it all that its user has.
func confine(j job) error {
	// The agent is kept from the kernel's choice when memory is short; who works for a task is not.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	rules := []landlock.Rule{
		landlock.RODirs("/etc").IgnoreIfMissing(),
		// These may be links to elsewhere.
		landlock.ROFiles("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime", "/dev/null").IgnoreIfMissing(),
	}
	if j.Sandbox != "" {
		rules = append(rules, landlock.RWDirs(j.Sandbox).WithRefer())
	}
	for _, it := range j.Items {
		s, err := parse(it.URI)
		if err != nil {
			return err
		}
		switch s.kind {
		case local:
			info, err := os.Stat(s.uri)
			if err == nil && info.Mode().IsRegular() {
				rules = append(rules, landlock.ROFiles(s.uri).IgnoreIfMissing())
			}
		case hadoop:
			// Its client is a world of its own, which runs as the task's user.
			rules = append(rules, landlock.RODirs("/"), landlock.RWDirs("/tmp", "/dev").IgnoreIfMissing())
		case web, ftp:
		}
	}
	return landlock.V5.BestEffort().RestrictPaths(rules...)
}

// become changes this whole process to a user, for good.
func (as identity) become() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up new privileges: %w", err)
	}
	if !as.Switch {
		return nil
	}
	if err := syscall.Setgroups(as.Groups); err != nil {
		return fmt.Errorf("cannot set groups: %w", err)
	}
	if err := syscall.Setresgid(as.GID, as.GID, as.GID); err != nil {
		return fmt.Errorf("cannot set the group: %w", err)
	}
	if err := syscall.Setresuid(as.UID, as.UID, as.UID); err != nil {
		return fmt.Errorf("cannot set the user: %w", err)
	}
	if os.Geteuid() != as.UID || os.Getegid() != as.GID || as.UID != 0 && syscall.Setuid(0) == nil {
		return errors.New("the user did not change")
	}
	return nil
}
