package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// lockPatience is how long a process that is just ending may keep the folder.
	lockPatience = 5 * time.Second
	lockEvery    = 50 * time.Millisecond
)

// lock keeps the work folder for this master, or Marathon, until it ends: another one in it would have the same id, in the mesh and in what it
// gives ids to. One that is alone needs it not, its store is locked.
func (r *role) lock(patience time.Duration) error {
	path := filepath.Join(r.place.dir, r.name+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot lock --work-dir: %w", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(lockEvery) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("--work-dir %q is in use by another %s; each needs its own", r.place.dir, r.name)
		}
		return fmt.Errorf("cannot lock --work-dir: %s: %w", path, err)
	}
	r.closers = append(r.closers, func() { f.Close() })
	r.add("work folder", func(ctx context.Context) error { <-ctx.Done(); return f.Close() })
	return nil
}
