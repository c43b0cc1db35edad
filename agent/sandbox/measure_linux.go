package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// measureBatch is after how many entries a measurement looks at the time that they took, and rests restFactor times as
	// long: it never takes more than a part of one processor and of the disk, however much there is to measure.
	measureBatch = 256
	restFactor   = 4
	// measureDepth bounds how deep it goes: each level holds a folder open.
	measureDepth = 1024
)

// measurement is one on its way.
type measurement struct {
	device uint64
	bytes  int64
	seen   map[uint64]struct{} // files with several names, by inode
	count  int
	since  time.Time
}

// measure returns what a folder holds, in bytes on disk. What goes while it looks may be counted or not. Folders are entered
// from the one above, never by a path: what a task does with them meanwhile leads nowhere else.
func measure(ctx context.Context, dir string) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	m := &measurement{device: st.Dev, bytes: st.Blocks * 512, seen: map[uint64]struct{}{}, since: time.Now()}
	err = m.folder(ctx, f, measureDepth)
	return m.bytes, err
}

func (m *measurement) folder(ctx context.Context, f *os.File, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%q is deeper than %d folders", f.Name(), measureDepth)
	}
	for {
		names, err := f.Readdirnames(measureBatch)
		for _, name := range names {
			if err := m.entry(ctx, f, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot list a folder: %w", err)
		}
	}
}

func (m *measurement) entry(ctx context.Context, in *os.File, name string, depth int) error {
	if m.count++; m.count%measureBatch == 0 {
		if err := m.rest(ctx); err != nil {
			return err
		}
	}
	at := int(in.Fd())
	var st unix.Stat_t
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != m.device {
		return nil
	}
	kind := st.Mode & unix.S_IFMT
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		if _, ok := m.seen[st.Ino]; ok {
			return nil
		}
		m.seen[st.Ino] = struct{}{}
	}
	m.bytes += st.Blocks * 512
	if kind != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // gone, or another thing by now
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return m.folder(ctx, f, depth-1)
}

// rest leaves the machine to others in proportion to what was taken.
func (m *measurement) rest(ctx context.Context) error {
	timer := time.NewTimer(min(time.Since(m.since)*restFactor, time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		m.since = time.Now()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
