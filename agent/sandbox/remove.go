package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// nestedDepth bounds how deeply sandboxes within sandboxes are looked for.
const nestedDepth = 32

// unneeded returns the paths, below the work directory, of all sandboxes that nobody needs: those of agents that used the
// work directory before this one too, and within those that are needed the ones of nested containers. needed is asked for
// containers by name.
func (l Layout) unneeded(needed func(container string) bool) ([]string, error) {
	runs, err := l.all()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, dir := range runs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() {
			continue // "latest", or something that is gone
		}
		rel, err := filepath.Rel(l.workDir, dir)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(dir)
		if !needed(name) {
			out = append(out, rel)
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			continue
		}
		out = append(out, nestedIn(root, ".", rel, name, needed, nestedDepth)...)
		_ = root.Close()
	}
	return out, nil
}

// nestedIn lists the sandboxes of nested containers that nobody needs in one that is. Only folders count: what a link leads
// to is found where it is, or is none of ours.
func nestedIn(root *os.Root, at, rel, name string, needed func(string) bool, depth int) (out []string) {
	within := filepath.Join(at, dirContainers)
	if info, err := root.Lstat(within); err != nil || !info.IsDir() || depth == 0 {
		return nil
	}
	f, err := root.Open(within)
	if err != nil {
		return nil
	}
	entries, _ := f.ReadDir(-1) // as many as can be read
	_ = f.Close()
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		child := name + "." + e.Name()
		path := filepath.Join(rel, dirContainers, e.Name())
		if needed(child) {
			out = append(out, nestedIn(root, filepath.Join(within, e.Name()), path, child, needed, depth-1)...)
			continue
		}
		out = append(out, path)
	}
	return out
}

// container is the name of the container whose sandbox lies at a path below the work directory.
func (l Layout) container(rel string) string {
	parts := strings.Split(filepath.ToSlash(rel), "/")
	var chain []string
	switch {
	case len(parts) >= 8 && parts[0] == "slaves": // slaves A frameworks F executors E runs C
		chain, parts = parts[7:8], parts[8:]
	case len(parts) >= 2 && parts[0] == dirContainers:
		chain, parts = parts[1:2], parts[2:]
	default:
		return ""
	}
	name := chain[0]
	for ; len(parts) >= 2; parts = parts[2:] {
		name += "." + parts[1]
	}
	return name
}

// top is the part of a path, below the work directory, that only the agent writes to: all down to the outermost sandbox.
func top(rel string) string {
	parts := strings.Split(filepath.ToSlash(rel), "/")
	n := 2
	if parts[0] == "slaves" {
		n = 8
	}
	return filepath.Join(parts[:min(n, len(parts))]...)
}

// remove removes a sandbox by its path below the work directory, "latest" if it pointed there, and the folders above as far
// as they are empty now. Above a nested one everything is its user's, and is not trusted to be what it was.
func (l Layout) remove(rel string, mounts []string) error {
	dir := filepath.Join(l.workDir, rel)
	for _, m := range mounts {
		if m == dir || strings.HasPrefix(m, dir+"/") {
			return fmt.Errorf("cannot remove %q: %w: %q", rel, errMounted, m)
		}
	}
	if outer := top(rel); outer != rel {
		root, err := os.OpenRoot(filepath.Join(l.workDir, outer))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot remove: %w", err)
		}
		defer root.Close()
		inner, err := filepath.Rel(outer, rel)
		if err == nil {
			err = root.RemoveAll(inner)
		}
		if err != nil {
			return fmt.Errorf("cannot remove: %w", err)
		}
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove: %w", err)
	}
	runs := filepath.Dir(dir)
	latest := filepath.Join(runs, "latest")
	if target, err := os.Readlink(latest); err == nil && target == filepath.Base(dir) {
		if err := os.Remove(latest); err != nil {
			return fmt.Errorf("cannot remove: %w", err)
		}
	}
	if filepath.Base(runs) != "runs" {
		return nil
	}
	// runs, executor, "executors", framework: each goes only when it is empty, which Remove sees to.
	for range 4 {
		if err := os.Remove(runs); err != nil {
			return nil
		}
		runs = filepath.Dir(runs)
	}
	return nil
}

// Forget removes the sandbox of a nested or standalone container that has ended, without waiting for its time.
func (c *Collector) Forget(dir string) error {
	rel, err := filepath.Rel(c.cfg.Layout.workDir, filepath.Clean(dir))
	if err != nil || !filepath.IsLocal(rel) || filepath.Base(filepath.Dir(rel)) != dirContainers || c.cfg.Layout.container(rel) == "" {
		return fmt.Errorf("cannot remove %q: it is no sandbox of a nested or standalone container", dir)
	}
	if c.needed(c.cfg.Layout.container(rel)) {
		return fmt.Errorf("cannot remove %q: its container is needed", dir)
	}
	mounts, err := mountPoints()
	if err != nil {
		return fmt.Errorf("cannot see what is mounted in %q: %w", dir, err)
	}
	if err := c.cfg.Layout.remove(rel, mounts); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ended, rel)
	c.dirty = true
	return nil
}
