package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"starling/agent/nolink"
)

var (
	// ErrNotFound is returned for a path that names nothing.
	ErrNotFound = errors.New("no such file")
	// ErrInaccessible is returned for a path that leaves its sandbox, by dots or by a link.
	ErrInaccessible = errors.New("path leaves the sandbox")
	// ErrIsDir is returned where a file is expected.
	ErrIsDir = errors.New("is a directory")
	// ErrNoFile is returned for what is neither a file nor a folder: reading a pipe or a device could hang.
	ErrNoFile = errors.New("is not a regular file")
)

// Entry is one entry of a folder.
type Entry struct {
	Name string
	Info fs.FileInfo
}

// place is a path taken apart: a sandbox, or a volume that is shown in one, and where in it.
type place struct{ sandbox, rest string }

// resolve finds the sandbox that a path is in. Paths are those of the sandboxes on this machine, with "latest" for an agent's
// or a container's id where one likes, or the same from "/frameworks" or, for standalone containers, "/containers" on. A task
// of an executor is found in the latest run under .../executors/<executor id>/tasks/<task id> too.
func (l Layout) resolve(name string) (place, error) {
	clean := path.Clean("/" + name)
	rest := strings.TrimPrefix(clean, "/")
	for _, root := range []string{l.Root(), filepath.Join(l.workDir, "slaves", "latest"), l.workDir} {
		if below, ok := strings.CutPrefix(clean, filepath.ToSlash(root)+"/"); ok {
			rest = below
			break
		}
	}
	parts := strings.SplitN(rest, "/", 7)
	switch {
	case len(parts) >= 2 && parts[0] == dirContainers:
		parts = strings.SplitN(rest, "/", 3)
		return l.inVolume(place{sandbox: l.Standalone(parts[1]), rest: within(parts[2:])}), nil
	case len(parts) < 6 || parts[0] != "frameworks" || parts[2] != "executors":
		return place{}, ErrNotFound
	case parts[4] == dirTasks:
		tail := path.Join(dirTasks, parts[5], within(parts[6:]))
		parts = []string{parts[0], parts[1], parts[2], parts[3], "runs", "latest", tail}
	case parts[4] != "runs":
		return place{}, ErrNotFound
	}
	p := place{sandbox: filepath.Join(l.Root(), filepath.Join(parts[:6]...)), rest: within(parts[6:])}
	if parts[5] == "latest" {
		target, err := os.Readlink(p.sandbox)
		if err != nil || !Safe(target) {
			return place{}, ErrNotFound
		}
		p.sandbox = filepath.Join(filepath.Dir(p.sandbox), target)
	}
	return l.inVolume(p), nil
}

// within is the rest of a path, of which there may be none.
func within(parts []string) string {
	if len(parts) == 0 || parts[0] == "" {
		return "."
	}
	return parts[0]
}

// inVolume is the same place in the volume that it is in, if it is in one.
func (l Layout) inVolume(p place) place {
	for at, rest := p.rest, "."; at != "."; at, rest = path.Dir(at), path.Join(path.Base(at), rest) {
		if dir, ok := l.volumes[filepath.Join(p.sandbox, at)]; ok {
			return place{sandbox: dir, rest: rest}
		}
	}
	return p
}

// open opens what a path names, without ever following a link out of the sandbox. What is neither file nor folder there is
// not opened: the file is nil.
func (l Layout) open(name string) (*os.File, fs.FileInfo, error) {
	if file, ok := l.files[path.Clean("/"+name)]; ok {
		return opened(os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0))
	}
	p, err := l.resolve(name)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(p.sandbox)
	if err != nil {
		return nil, nil, classify(err)
	}
	defer root.Close()
	f, info, err := nolink.Open(root, p.rest, os.O_RDONLY)
	if err != nil {
		return nil, nil, classify(err)
	}
	return f, info, nil
}

func opened(f *os.File, err error) (*os.File, fs.FileInfo, error) {
	if err != nil {
		return nil, nil, classify(err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(classify(err), f.Close())
	}
	return f, info, nil
}

// classify makes one of our errors of what the system says, as far as it is the caller's fault.
func classify(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return ErrNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.EXDEV):
		return ErrInaccessible
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		if _, system := errors.AsType[syscall.Errno](pathErr.Err); !system {
			// What os.Root itself refuses: a path that escapes.
			return ErrInaccessible
		}
	}
	return fmt.Errorf("cannot read sandbox: %w", err)
}

// List returns what is in a folder, or the one entry of a file, in order of names. most bounds the number.
func (l Layout) List(name string, most int) ([]Entry, error) {
	f, info, err := l.open(name)
	if err != nil {
		return nil, err
	}
	if f != nil {
		defer f.Close()
	}
	if !info.IsDir() {
		return []Entry{{Name: "", Info: info}}, nil
	}
	entries, err := f.ReadDir(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, classify(err)
	}
	out := make([]Entry, 0, len(entries))
	for _, e := range entries {
		// An entry that goes while we look is not listed.
		if info, err := e.Info(); err == nil {
			out = append(out, Entry{Name: e.Name(), Info: info})
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Open opens a regular file; the caller closes it.
func (l Layout) Open(name string) (*os.File, fs.FileInfo, error) {
	f, info, err := l.open(name)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case f == nil:
		return nil, nil, ErrNoFile
	case info.Mode().IsRegular():
		return f, info, nil
	case info.IsDir():
		err = ErrIsDir
	default:
		err = ErrNoFile
	}
	return nil, nil, errors.Join(err, f.Close())
}
