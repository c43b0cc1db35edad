package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"starling/agent/nolink"
)

// Share makes a folder of the executor's sandbox, which all its tasks may have as a volume, and a link to it in the sandbox
// of one of them, at the path where that task looks for it; no link where target is empty. It returns the folder.
func Share(parent, container, source, target, owner string) (string, error) {
	paths := []string{source}
	if target != "" {
		paths = append(paths, target)
	}
	for _, path := range paths {
		if !filepath.IsLocal(path) || strings.ContainsRune(path, 0) {
			return "", fmt.Errorf("cannot share folder: %q is no path below a sandbox", path)
		}
	}
	root, err := nolink.OpenRoot(parent)
	if err != nil {
		return "", fmt.Errorf("cannot share folder: %w", err)
	}
	defer root.Close()
	if err := share(root, container, source, target, owner); err != nil {
		return "", fmt.Errorf("cannot share folder: %w", err)
	}
	return filepath.Join(parent, source), nil
}

func share(root *os.Root, container, source, target, owner string) error {
	if _, err := root.Stat(source); errors.Is(err, os.ErrNotExist) {
		uid, gid, err := ownerOf(owner)
		if err != nil {
			return err
		}
		if err := makeParents(root, source, uid, gid); err != nil {
			return err
		}
		if err := nolink.Mkdir(root, source, uid, gid); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if target == "" {
		return nil
	}
	place := filepath.Join(dirContainers, container, target)
	if err := root.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	// From the folder of the link up to the executor's sandbox.
	up, err := filepath.Rel(filepath.Dir(place), ".")
	if err != nil {
		return err
	}
	to := filepath.Join(up, source)
	if now, err := root.Readlink(place); err == nil && now == to {
		return nil
	}
	return root.Symlink(to, place)
}
