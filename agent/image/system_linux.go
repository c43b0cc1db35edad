package image

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errLocked is returned for a lock that another holds.
var errLocked = errors.New("locked by another process")

// flock locks an open file or folder until it is closed, without waiting.
func flock(f *os.File, alone bool) error {
	how := unix.LOCK_SH | unix.LOCK_NB
	if alone {
		how = unix.LOCK_EX | unix.LOCK_NB
	}
	err := unix.Flock(int(f.Fd()), how)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// syncFS writes all that is unwritten of the file system that a folder is on.
func syncFS(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// space tells how many bytes a user may still write where dir is, and how large that is.
func space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("cannot learn how full the disk of images is: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// device tells which file system a folder is on.
func device(dir string) (uint64, bool) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, false
	}
	return uint64(st.Dev), true
}
