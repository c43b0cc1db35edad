// Package overlay puts the layers of an image together: as an overlay mount, or as a copy where no overlay can be had, as in
// a container whose own root is one.
//
// Layers are folders in the form of overlayfs: a character device 0:0 is a name that is deleted from the layers below, the
// attribute trusted.overlay.opaque on a folder hides what they have in it. They are given uppermost first, and are never
// written to.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// copier copies layers over one another, the lowest first.
type copier struct {
	ctx  context.Context
	into string
	buf  []byte
}

// Copy puts layers together in a folder, which is made if it lacks. Deletions are applied; hard links within one layer stay
// such.
func Copy(ctx context.Context, layers []string, into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	c := &copier{ctx: ctx, into: into, buf: make([]byte, 256<<10)}
	for i := len(layers) - 1; i >= 0; i-- {
		if err := c.layer(layers[i]); err != nil {
			return fmt.Errorf("cannot copy layer: %w", err)
		}
	}
	return nil
}

func (c *copier) layer(dir string) error {
	links := map[inode]string{}
	type pair struct{ from, to string }
	var folders []pair
	err := filepath.WalkDir(dir, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, from)
		if err != nil {
			return err
		}
		to := filepath.Join(c.into, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.IsDir() {
			folders = append(folders, pair{from, to})
			return c.folder(from, to)
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if isWhiteout(info) {
			return nil
		}
		if id, many := linked(info); many {
			if first, ok := links[id]; ok {
				return os.Link(first, to)
			}
			links[id] = to
		}
		if err := c.thing(from, to, info); err != nil {
			return err
		}
		return like(from, to, info)
	})
	if err != nil {
		return err
	}
	// Filling a folder has changed its time; the inner ones come first.
	for i := len(folders) - 1; i >= 0; i-- {
		info, err := os.Lstat(folders[i].from)
		if err != nil {
			return err
		}
		if err := like(folders[i].from, folders[i].to, info); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) folder(from, to string) error {
	info, err := os.Lstat(to)
	if err == nil && (!info.IsDir() || isOpaque(from)) {
		if to == c.into {
			return errors.New("a layer hides its own root")
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		return os.Mkdir(to, 0o700)
	}
	return err
}

// thing makes what is no folder.
func (c *copier) thing(from, to string, info fs.FileInfo) error {
	switch {
	case info.Mode().IsRegular():
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(out, in, c.buf)
		return errors.Join(err, out.Close())
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	default:
		return makeDevice(to, info)
	}
}
