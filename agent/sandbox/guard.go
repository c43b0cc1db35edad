package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// What a task leaves in its sandbox is on the node: secrets that were fetched, and, of a container that is root within, programs
// that change the user of whoever runs them. It may open its own folder to everybody, but not the one above, and that lets in
// only the group of the task's user. Where containers of several users are nested in one, all users have to get through.
const (
	modeOneGroup = 0o710
	modeAll      = 0o711
)

// guard keeps all but a group out of a folder of runs. A negative gid is the agent's own.
func guard(runs string, gid int) error {
	dir, err := os.Open(runs)
	if err != nil {
		return err
	}
	if gid >= 0 {
		err = dir.Chown(-1, gid)
	}
	return errors.Join(err, dir.Chmod(modeOneGroup), dir.Close())
}

// admit lets the user of a nested container through to the sandbox that it is nested in.
func (l Layout) admit(parentDir, owner string) error {
	uid, gid, err := ownerOf(owner)
	if err != nil || uid <= 0 {
		return err
	}
	at := filepath.Dir(parentDir)
	for filepath.Base(at) == dirContainers && at != filepath.Join(l.workDir, dirContainers) {
		at = filepath.Dir(filepath.Dir(at))
	}
	if filepath.Base(at) != "runs" {
		return nil // standalone
	}
	dir, err := os.Open(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) == gid {
		return nil
	}
	return dir.Chmod(modeAll)
}
