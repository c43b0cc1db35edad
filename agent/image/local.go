package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// indexMax bounds the files of a local image that are read into memory; entriesMax the entries of an archive.
const (
	indexMax   = 8 << 20
	entriesMax = 100_000
)

// files are those of an OCI layout or an archive.
type files interface {
	open(name string) (io.ReadCloser, error)
	Close() error
}

// folder is a layout; nothing in it can lead out of it.
type folder struct{ *os.Root }

func (f folder) open(name string) (io.ReadCloser, error) {
	file, err := f.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%q is no file", name), err, file.Close())
	}
	return file, nil
}

// tarFile is an archive with an index of what is in it, so that a layer is not searched for from the start.
type tarFile struct {
	*os.File
	at    map[string]*io.SectionReader
	links map[string]string
}

func openTar(p string) (_ *tarFile, err error) {
	f, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &tarFile{File: f, at: map[string]*io.SectionReader{}, links: map[string]string{}}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%q is no file", p), err)
	}
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err == nil && (magic[0] == 0x1f && magic[1] == 0x8b || string(magic) == "\x28\xb5\x2f\xfd") {
		return nil, fmt.Errorf("archive %q is compressed: decompress it, so that its layers can be found in it", p)
	}
	for tr, n := tar.NewReader(f), 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			return t, nil
		}
		if err == nil && n > entriesMax {
			err = fmt.Errorf("more than %d entries", entriesMax)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read archive %q: %w", p, err)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader takes from the file what it needs and no more: here the content begins.
			start, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			t.at[name] = io.NewSectionReader(f, start, h.Size)
		case tar.TypeSymlink:
			t.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			t.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (t *tarFile) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	for range 8 {
		if s, ok := t.at[name]; ok {
			return io.NopCloser(io.NewSectionReader(s, 0, s.Size())), nil
		}
		to, ok := t.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func readAll(f files, name string) ([]byte, error) {
	r, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, indexMax+1))
	if err == nil && len(b) > indexMax {
		err = fmt.Errorf("%q is longer than %d bytes", name, indexMax)
	}
	return b, err
}

// findLocal looks for an image on this node.
func (s *Store) findLocal(src source) (resolved, error) {
	var tried []string
	for _, c := range src.candidates() {
		r, err := s.openLocal(src, c)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, errElsewhere) {
			return resolved{}, err
		}
		tried = append(tried, c.path)
	}
	return resolved{}, fmt.Errorf("no such image: looked for %s", strings.Join(tried, ", "))
}

// errElsewhere is returned for a place where nothing is.
var errElsewhere = errors.New("nothing is there")

type candidate struct {
	path, tag string
	kind      kind
	// exact: the name of the file does not say which image is meant, so what is in it must.
	exact bool
}

// candidates are where a local image may be. In a folder that is NAME:TAG or NAME, as an archive or as a layout.
func (src source) candidates() []candidate {
	if src.kind != inFolder {
		return []candidate{{path: src.path, tag: src.tag, kind: src.kind, exact: src.tag != ""}}
	}
	base, tag := cutTag("/" + src.tag)
	at := func(stem, layoutTag string, exact bool) []candidate {
		p := filepath.Join(src.path, stem)
		return []candidate{{p + ".tar", src.tag, inArchive, exact}, {p, layoutTag, inLayout, exact}}
	}
	found := at(src.tag, "", false)
	if tag == "" {
		return append(found, at(src.tag+":latest", "", false)...)
	}
	return append(found, at(base[1:], tag, true)...)
}

func (s *Store) openLocal(src source, c candidate) (resolved, error) {
	info, err := os.Stat(c.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && src.kind == inFolder && info.IsDir() != (c.kind == inLayout) {
		return resolved{}, errElsewhere
	}
	if err != nil {
		return resolved{}, err
	}
	var f files
	if info.IsDir() {
		root, err := os.OpenRoot(c.path)
		if err != nil {
			return resolved{}, err
		}
		if _, err := root.Stat("index.json"); err != nil && src.kind == inFolder {
			root.Close()
			return resolved{}, errElsewhere
		}
		f = folder{root}
	} else {
		t, err := openTar(c.path)
		if err != nil {
			return resolved{}, err
		}
		f = t
	}
	r, err := s.readLocal(f, c)
	if err != nil {
		return resolved{}, errors.Join(fmt.Errorf("%q: %w", c.path, err), f.Close())
	}
	r.record.Name, r.close = src.canonical, func() { f.Close() }
	r.record.Stamp = stampOf(c.path)
	return r, nil
}

// stamp is what tells that a local image has changed; empty for one of a registry, or one that is not there.
func (src source) stamp() string {
	if src.kind == inRegistry {
		return ""
	}
	for _, c := range src.candidates() {
		if st := stampOf(c.path); st != "" {
			return st
		}
	}
	return ""
}

func stampOf(p string) string {
	info, err := os.Stat(p)
	if err != nil {
		return ""
	}
	if info.IsDir() {
		if info, err = os.Stat(filepath.Join(p, "index.json")); err != nil {
			return ""
		}
	}
	return fmt.Sprintf("%s %d %d", p, info.Size(), info.ModTime().UnixNano())
}

// readLocal reads an image from what `docker save` has made, or from an OCI layout, which may be in an archive as well.
func (s *Store) readLocal(f files, c candidate) (resolved, error) {
	if _, ok := f.(*tarFile); ok {
		b, err := readAll(f, "manifest.json")
		if err == nil {
			return s.readSaved(f, b, c)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return resolved{}, err
		}
	}
	b, err := readAll(f, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return resolved{}, errors.New("it is neither an OCI layout nor an archive of docker save")
	}
	if err != nil {
		return resolved{}, err
	}
	return s.readLayout(f, b, c.tag)
}

// readSaved reads what `docker save` has made.
func (s *Store) readSaved(f files, manifest []byte, c candidate) (resolved, error) {
	var saved []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(manifest, &saved); err != nil {
		return resolved{}, fmt.Errorf("cannot read manifest.json: %w", err)
	}
	which, tags := -1, []string{}
	for i, m := range saved {
		for _, t := range m.RepoTags {
			tags = append(tags, t)
			if sameTag(t, c.tag) {
				which = i
			}
		}
	}
	if which < 0 && len(saved) == 1 && (!c.exact || len(tags) == 0) {
		which = 0 // a single image is what is meant, whatever it was called where it was saved
	}
	if which < 0 {
		return resolved{}, fmt.Errorf("no such image: %q is not among %q", c.tag, tags)
	}
	m := saved[which]
	config, err := readAll(f, m.Config)
	if err != nil {
		return resolved{}, fmt.Errorf("cannot read its configuration: %w", err)
	}
	ids, err := layersOf(config, s.platform)
	if err != nil {
		return resolved{}, err
	}
	if len(ids) != len(m.Layers) {
		return resolved{}, fmt.Errorf("it has %d layers and its configuration %d", len(m.Layers), len(ids))
	}
	r := resolved{record: record{Digest: digestOf(config), Config: config, DiffIDs: ids}}
	for i, name := range m.Layers {
		r.blobs = append(r.blobs, blob{diffID: ids[i], open: func() (io.ReadCloser, error) { return f.open(name) }})
	}
	return r, nil
}

// sameTag tells whether a tag in an archive is the one that is looked for; "latest" may be left out.
func sameTag(have, want string) bool {
	whole := func(s string) string {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "docker.io/"), "library/")
		if _, tag := cutTag("/" + s); tag == "" {
			s += ":latest"
		}
		return s
	}
	return want != "" && whole(have) == whole(want)
}

// refName is how an index names its images (OCI image specification, "Pre-defined annotation keys").
const refName = "org.opencontainers.image.ref.name"

// readLayout reads an OCI layout.
func (s *Store) readLayout(f files, index []byte, tag string) (resolved, error) {
	var m v1.IndexManifest
	if err := json.Unmarshal(index, &m); err != nil {
		return resolved{}, fmt.Errorf("cannot read index.json: %w", err)
	}
	if tag != "" || len(m.Manifests) > 1 {
		if err := narrow(&m, tag); err != nil {
			return resolved{}, err
		}
	}
	d, err := descend(&m, s.platform, func(d v1.Descriptor) (*v1.IndexManifest, error) {
		b, err := verified(f, d)
		if err != nil {
			return nil, err
		}
		var next v1.IndexManifest
		return &next, json.Unmarshal(b, &next)
	})
	if err != nil {
		return resolved{}, err
	}
	b, err := verified(f, d)
	if err != nil {
		return resolved{}, err
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(b, &manifest); err != nil {
		return resolved{}, fmt.Errorf("cannot read its manifest: %w", err)
	}
	config, err := verified(f, manifest.Config)
	if err != nil {
		return resolved{}, fmt.Errorf("cannot read its configuration: %w", err)
	}
	r := resolved{record: record{Digest: d.Digest.String(), Config: config}}
	return r, r.fill(&manifest, s.platform, func(d v1.Descriptor) (io.ReadCloser, error) { return f.open(blobPath(d)) })
}

// narrow leaves of an index what bears a tag or a digest. Without one it is "latest", or all where nothing has a name.
func narrow(m *v1.IndexManifest, tag string) error {
	var kept []v1.Descriptor
	var names []string
	for _, d := range m.Manifests {
		n := d.Annotations[refName]
		if n != "" {
			names = append(names, n)
		}
		_, last := cutTag("/" + n)
		if n == tag || tag != "" && (last == tag || d.Digest.String() == tag) || tag == "" && n == "latest" {
			kept = append(kept, d)
		}
	}
	if len(kept) == 0 && (tag != "" && (tag != "latest" || len(names) > 0) || len(names) > 1) {
		return fmt.Errorf("no such image: %q is not among %q", tag, names)
	}
	if len(kept) > 0 {
		m.Manifests = kept
	}
	return nil
}

func blobPath(d v1.Descriptor) string { return path.Join("blobs", d.Digest.Algorithm, d.Digest.Hex) }

// verified reads a small blob and checks its digest.
func verified(f files, d v1.Descriptor) ([]byte, error) {
	if _, err := checkDigest(d.Digest.String()); err != nil {
		return nil, err
	}
	b, err := readAll(f, blobPath(d))
	if err != nil {
		return nil, err
	}
	if got := digestOf(b); got != d.Digest.String() {
		return nil, fmt.Errorf("the blob %s is %s in truth", d.Digest, got)
	}
	return b, nil
}
