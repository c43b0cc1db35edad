package nolink

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// tree makes a folder with a file, a link to it at each step, and a pipe.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755),
		os.WriteFile(filepath.Join(dir, "a", "b", "file"), []byte("text"), 0o644),
		os.Symlink("a", filepath.Join(dir, "top")),
		os.Symlink("b", filepath.Join(dir, "a", "low")),
		os.Symlink("file", filepath.Join(dir, "a", "b", "link")),
		os.Symlink("/etc/hostname", filepath.Join(dir, "a", "b", "out")),
		os.Symlink("../../../..", filepath.Join(dir, "a", "b", "up")),
		syscall.Mkfifo(filepath.Join(dir, "a", "pipe"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNoPartIsALink(t *testing.T) {
	dir := tree(t)
	for path, want := range map[string]error{
		"a/b/file": nil, "a//b/./file": nil, "top/b/file": ErrLink, "a/low/file": ErrLink, "a/b/link": ErrLink, "a/b/file/x": ErrLink,
		"a/b/none": fs.ErrNotExist, "none/file": fs.ErrNotExist,
	} {
		f, err := OpenFile(dir+"/"+path, os.O_RDONLY, 0)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
		if err == nil {
			if text, err := io.ReadAll(f); string(text) != "text" || err != nil {
				t.Errorf("%s: %q, %v", path, text, err)
			}
			f.Close()
		}
		m, err := Mountable(dir + "/" + path)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("mount of %s: got %v, want %v", path, err, want)
		}
		if err == nil {
			m.Close()
		}
	}
	for path, want := range map[string]error{"a/b": nil, "top/b": ErrLink, "a/low": ErrLink, "a/pipe": ErrLink, "a/b/file": ErrLink, "none": fs.ErrNotExist} {
		root, err := OpenRoot(filepath.Join(dir, path))
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("root at %s: got %v, want %v", path, err, want)
		}
		if err == nil {
			if text, err := root.ReadFile("file"); string(text) != "text" || err != nil {
				t.Errorf("%s: %q, %v", path, text, err)
			}
			root.Close()
		}
	}
	if _, err := OpenFile("a/b/file", os.O_RDONLY, 0); err == nil {
		t.Error("a path that is not absolute was opened")
	}
	if f, err := OpenFile("/", os.O_RDONLY, 0); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

func TestOnlyFilesAndFoldersAreOpened(t *testing.T) {
	root, err := OpenRoot(tree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for how, open := range map[string]func(*os.Root, string, int) (*os.File, fs.FileInfo, error){"open": Open, "look": look} {
		for name, ok := range map[string]bool{
			"a/b/file": true, "top/low/link": true, "a/b": true, ".": true, "a/b/out": false, "a/b/up/x": false, "none": false,
		} {
			f, info, err := open(root, name, os.O_RDONLY)
			if (err == nil) != ok {
				t.Errorf("%s %s: %v", how, name, err)
			}
			if err != nil {
				continue
			}
			if f == nil || info == nil {
				t.Fatalf("%s %s: nothing came", how, name)
			}
			if entries, err := f.ReadDir(-1); info.IsDir() {
				if err != nil || len(entries) == 0 {
					t.Errorf("%s %s: %v, %v", how, name, entries, err)
				}
				for _, e := range entries {
					if _, err := e.Info(); err != nil {
						t.Errorf("%s %s: %v", how, name, err)
					}
				}
			}
			f.Close()
		}
		if f, info, err := open(root, "a/pipe", os.O_RDWR); f != nil || err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
			t.Errorf("%s of a pipe: %v, %v, %v", how, f, info, err)
		}
	}
	if _, err := Below(root, "a/pipe"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a pipe as a folder: got %v", err)
	}
	if box, err := Below(root, "a/b"); err != nil {
		t.Error(err)
	} else {
		box.Close()
	}
}
