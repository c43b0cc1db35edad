package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs is an archive of 3,000 files of about 40 KiB that compress to a third, as programs do.
func programs(t testing.TB) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var items []item
	for d := range 100 {
		items = append(items, item{name: fmt.Sprintf("usr/lib/d%d/", d), kind: tar.TypeDir, mode: 0o755})
		for f := range 30 {
			b := make([]byte, rnd.IntN(80<<10))
			for i := range b {
				b[i] = "abcdefghijklmnop"[rnd.IntN(6)]
			}
			items = append(items, item{name: fmt.Sprintf("usr/lib/d%d/f%d", d, f), body: string(b), mode: 0o644})
		}
	}
	return tarOf(t, items...)
}

// BenchmarkUnpack: MB/s of the content, beside `tar x` of the same file in the same run.
func BenchmarkUnpack(b *testing.B) {
	plain := programs(b)
	for name, data := range map[string][]byte{"x.tar": plain, "x.tar.gz": compress(b, "gz", plain)} {
		file := filepath.Join(b.TempDir(), name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			b.Fatal(err)
		}
		run := func(what string, do func(dir string) error) {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.SetBytes(int64(len(plain)))
				for b.Loop() {
					b.StopTimer()
					dir := b.TempDir()
					b.StartTimer()
					if err := do(dir); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := os.RemoveAll(dir); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
		run("extract", func(dir string) error {
			root, err := os.OpenRoot(dir)
			if err != nil {
				return err
			}
			defer root.Close()
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = Extract(b.Context(), f, name, root, Options{})
			return err
		})
		if os.Geteuid() == 0 {
			run("layer", func(dir string) error {
				root, err := os.OpenRoot(dir)
				if err != nil {
					return err
				}
				defer root.Close()
				_, err = Layer(b.Context(), bytes.NewReader(data), root, LayerOptions{})
				return err
			})
		}
		run("tar", func(dir string) error { return exec.Command("tar", "xf", file, "-C", dir).Run() })
	}
}
