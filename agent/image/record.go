package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// record is what a name meant when it was last looked up.
type record struct {
	Name string `json:"name"`
	// Asked is the name as somebody wrote it, for PRUNE_IMAGES.
	Asked  string `json:"asked"`
	Digest string `json:"digest"`
	// Config is the configuration of the image, byte by byte.
	Config []byte `json:"config"`
	// DiffIDs are the layers, the lowest first.
	DiffIDs []string `json:"diff_ids"`
	// Stamp changes when a local file does.
	Stamp string `json:"stamp,omitempty"`
}

func (s *Store) recordPath(canonical string) string {
	return s.path("images", digestOf([]byte(canonical + " " + s.platform.String()))[7:]+".json")
}

func (s *Store) record(canonical string) (record, bool) {
	var r record
	err := s.read(s.recordPath(canonical), &r)
	return r, err == nil
}

// image reads the configuration.
func (r record) image() (Image, error) {
	var c v1.ConfigFile
	if err := json.Unmarshal(r.Config, &c); err != nil {
		return Image{}, fmt.Errorf("cannot read configuration of image %q: %w", r.Name, err)
	}
	return Image{
		Name: r.Name, Digest: r.Digest, Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env,
		WorkingDir: c.Config.WorkingDir, User: c.Config.User, StopSignal: c.Config.StopSignal, Labels: c.Config.Labels,
		Ports: slices.Sorted(maps.Keys(c.Config.ExposedPorts)), Volumes: slices.Sorted(maps.Keys(c.Config.Volumes)),
		Architecture: c.Architecture, Variant: c.Variant,
	}, nil
}

// layerInfo is what is kept of a layer beside its files.
type layerInfo struct {
	DiffID  string `json:"diff_id"`
	Bytes   int64  `json:"bytes"`
	Entries int    `json:"entries"`
	// Opaque: it hides all that is below it.
	Opaque bool `json:"opaque,omitempty"`
}

// checkDigest judges what becomes the name of a folder.
func checkDigest(diffID string) (hex string, err error) {
	h, err := v1.NewHash(diffID)
	if err != nil || h.Algorithm != "sha256" {
		return "", fmt.Errorf("%q is no digest of a layer", diffID)
	}
	return h.Hex, nil
}

// seenLayer is a layer that was found whole, with the file that says so.
type seenLayer struct {
	file os.FileInfo
	info layerInfo
}

// layer tells of a layer that is in the store. One that is torn is set aside. What was read once is not read again as long
// as the file is the same.
func (s *Store) layer(hex string) (layerInfo, bool) {
	dir := s.path("layers", hex)
	file, err := os.Stat(filepath.Join(dir, "layer.json"))
	if err == nil {
		s.mu.Lock()
		seen, ok := s.seen[hex]
		s.mu.Unlock()
		if ok && os.SameFile(seen.file, file) && seen.file.Size() == file.Size() {
			return seen.info, true
		}
	}
	var l layerInfo
	if err == nil {
		err = load(filepath.Join(dir, "layer.json"), &l)
	}
	if err == nil {
		var fs os.FileInfo
		if fs, err = os.Stat(filepath.Join(dir, "fs")); err == nil && (!fs.IsDir() || l.DiffID != "sha256:"+hex) {
			err = errTorn
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.seen[hex] = seenLayer{file, l}
		return l, true
	}
	delete(s.seen, hex)
	if _, there := os.Lstat(dir); there == nil && (errors.Is(err, errTorn) || errors.Is(err, os.ErrNotExist)) {
		s.quarantine(dir)
	}
	return layerInfo{}, false
}

// whole tells whether all layers of an image are there.
func (s *Store) whole(r record) bool {
	for _, id := range r.DiffIDs {
		hex, err := checkDigest(id)
		if err != nil {
			return false
		}
		if _, ok := s.layer(hex); !ok {
			return false
		}
	}
	return true
}

// layers are the folders of an image, the uppermost first. A layer that is there twice counts where it is uppermost: what
// it says there holds for all below, and overlayfs refuses a folder that it has already.
func (s *Store) layers(r record) []string {
	var dirs []string
	seen := map[string]bool{}
	for _, id := range slices.Backward(r.DiffIDs) {
		hex, err := checkDigest(id)
		if err != nil || seen[hex] {
			continue
		}
		seen[hex] = true
		dirs = append(dirs, s.path("layers", hex, "fs"))
		if l, ok := s.layer(hex); ok && l.Opaque {
			break
		}
	}
	return dirs
}

// touch notes that the layers of an image are used now.
func (s *Store) touch(r record) {
	now := time.Now()
	for _, id := range r.DiffIDs {
		if hex, err := checkDigest(id); err == nil {
			if err := os.Chtimes(s.path("layers", hex, "layer.json"), now, now); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.log.Warn("cannot note the use of a layer", "err", err)
			}
		}
	}
}
