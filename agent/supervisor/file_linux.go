package supervisor

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// The files of the os package ask to be polled for, at four more system calls each. What is read and written at every
// start, or by the hundred when the process table is searched, goes without.

// readFile reads a small file. With a buffer it allocates only for what does not fit in.
func readFile(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

// writeFile writes to a file that exists, such as the kernel's, in one piece.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// replaceFile writes text to temp and renames that to path, so that path is whole at any time. With sync the content is
// on the disk before it gets its name.
func replaceFile(temp, path string, text []byte, sync bool) error {
	fd, err := unix.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "open", Path: temp, Err: err}
	}
	for err == nil && len(text) > 0 {
		var n int
		n, err = unix.Write(fd, text)
		if errors.Is(err, unix.EINTR) {
			n, err = 0, nil
		}
		text = text[max(n, 0):]
	}
	if err == nil && sync {
		// After a failed sync the file is not trusted again: the next try makes a new one.
		err = unix.Fsync(fd)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err == nil {
		err = unix.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// overwriteFile writes text in the place of what a file holds, which takes no more room than that.
func overwriteFile(path string, text []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
