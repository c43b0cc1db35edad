package libct

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// argv is what the program is started with. libcontainer searches for the program by the name that it is told, argv[0]: so
// this is what was asked for where the search leads to the program, and the program's path elsewhere.
func (b *bundle) argv(root string) []string {
	args := slices.Clone(b.Args)
	if b.Path == "" || len(args) == 0 || args[0] == b.Path || b.leads(root, args[0]) {
		return args
	}
	args[0] = b.Path
	return args
}

// leads tells whether a search for a name in the container is sure to come upon the program.
func (b *bundle) leads(root, name string) bool {
	if name == "" || strings.Contains(name, "/") {
		return false
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return false
	}
	defer r.Close()
	v := &view{root: r, mounts: b.mountedAt(r)}
	found, program := b.search(v, name), fs.FileInfo(nil)
	switch {
	case filepath.IsAbs(b.Path):
		program, _ = v.look(b.Path)
	case strings.Contains(b.Path, "/"):
		program, _ = v.look(filepath.Join(b.Dir, b.Path))
	default:
		program = b.search(v, b.Path)
	}
	return found != nil && program != nil && os.SameFile(found, program)
}

// search finds a program by the PATH of the container; nil if it does not, or can't be sure.
func (b *bundle) search(v *view, name string) fs.FileInfo {
	path := defaultPath
	for _, variable := range b.Env {
		if p, ok := strings.CutPrefix(variable, "PATH="); ok {
			path = p
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			return nil
		}
		info, sure := v.look(filepath.Join(dir, name))
		if !sure || info != nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return info
		}
	}
	return nil
}

// view is a root file system before things are mounted into it.
type view struct {
	root *os.Root
	// mounts are the places of mounts, without links.
	mounts []string
}

// mountedAt lists the places of mounts as far as they can be told.
func (b *bundle) mountedAt(root *os.Root) []string {
	var at []string
	for _, m := range b.Config.Mounts {
		at = append(at, m.Destination)
		if real, err := realIn(root, m.Destination); err == nil {
			at = append(at, real)
		}
	}
	return at
}

// look returns what the container is to see at a path, nil if it sees nothing. It is not sure where a link is absolute, or
// where something is mounted.
func (v *view) look(path string) (info fs.FileInfo, sure bool) {
	info, err := v.root.Stat(strings.TrimPrefix(path, "/"))
	if err != nil {
		return nil, errors.Is(err, fs.ErrNotExist) && !v.covered(path)
	}
	real, err := realIn(v.root, path)
	if err != nil || v.covered(path) || v.covered(real) {
		return nil, false
	}
	return info, true
}

// covered tells whether a path is at, below or above a mount.
func (v *view) covered(path string) bool {
	return slices.ContainsFunc(v.mounts, func(at string) bool { return within(path, at) || within(at, path) })
}

// realIn takes the links out of a path that is there in a root file system.
func realIn(root *os.Root, path string) (string, error) {
	if _, err := root.Stat(strings.TrimPrefix(path, "/")); err != nil {
		return "", err
	}
	base, err := filepath.EvalSymlinks(root.Name())
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(base, path))
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(base, real)
	return "/" + rel, err
}
