package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// restoreReserve makes the reserve if it lacks and there is space for twice of it.
func (s *Store) restoreReserve() {
	path := filepath.Join(s.dir, fileReserve)
	if s.opts.Reserve <= 0 {
		return
	}
	if info, err := os.Stat(path); err == nil && info.Size() == s.opts.Reserve {
		s.low.Store(false)
		return
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil || int64(st.Bavail)*st.Bsize < 2*s.opts.Reserve {
		s.low.Store(true)
		return
	}
	s.low.Store(s.allocateReserve(path) != nil)
}

func (s *Store) allocateReserve(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, s.opts.Reserve)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		// Some file systems can't promise space: then there is no reserve to have, and none to miss.
		err = f.Truncate(s.opts.Reserve)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// giveUpReserve frees the reserve if one of the errors says that the disk is full; true means that it is worth to try
// those again.
func (s *Store) giveUpReserve(errs []error) bool {
	for _, err := range errs {
		if !errors.Is(err, syscall.ENOSPC) {
			continue
		}
		s.low.Store(s.opts.Reserve > 0)
		return os.Remove(filepath.Join(s.dir, fileReserve)) == nil
	}
	return false
}
