package image

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"starling/agent/image/imagetest"
	"starling/agent/image/overlay"
)

// BenchmarkCached: what an image that is in the store costs a container, from its name to a mounted root file system and back.
func BenchmarkCached(b *testing.B) {
	for _, layers := range []int{2, 60} {
		b.Run(fmt.Sprintf("%d layers", layers), func(b *testing.B) {
			s := store(b)
			dir := b.TempDir()
			imagetest.Busybox(b, imagetest.WithLayers(layers-1)).Layout(b, filepath.Join(dir, "oci"), "")
			image := docker("oci:" + dir + "/oci")
			if _, err := s.Pull(b.Context(), image); err != nil {
				b.Fatal(err)
			}
			for _, sub := range []string{"upper", "work", "target"} {
				if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
					b.Fatal(err)
				}
			}
			runtime.LockOSThread() // never unlocked: its mounts end with it
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				b.Skipf("no mount namespace can be had: %v", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				b.Fatal(err)
			}
			for n := 0; b.Loop(); n++ {
				id := fmt.Sprintf("c%d", n)
				p, err := s.Prepare(b.Context(), id, image, dir)
				if err != nil {
					b.Fatal(err)
				}
				target := filepath.Join(dir, "target")
				if err := overlay.Mount(target, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), p.Layers); err != nil {
					b.Fatal(err)
				}
				if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
					b.Fatal(err)
				}
				if err := s.Release(b.Context(), id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
