//go:build unix

package archive

import (
	"os"
	"syscall"
	"testing"
)

func ownerOf(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}
