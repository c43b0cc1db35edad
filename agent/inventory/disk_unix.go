//go:build unix

package inventory

import (
	"fmt"
	"syscall"
)

// diskBytes returns the size of the file system of a path.
func diskBytes(path string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("cannot read the file system of %q: %w", path, err)
	}
	return st.Blocks * uint64(st.Bsize), nil
}
