package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// lockWait is how long the lock of the store is waited for: nobody holds it for longer than a few renames take.
const lockWait = 30 * time.Second

var errLockWait = errors.New("another process has not given it back in 30 s")

// quarantineMax is how many torn things are kept.
const quarantineMax = 32

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.config.Dir}, parts...)...)
}

// open makes the folders, takes a folder in tmp, and removes what others that are gone have left.
func (s *Store) open() error {
	for _, dir := range []string{"", "layers", "images", "tmp", "trash", "quarantine", filepath.Join("pins", s.owner())} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.config.Dir, 0o700); err != nil { // setuid files of images are not for users of the node
		return err
	}
	unlock, err := s.lock(context.Background(), true)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.WriteFile(s.path("pins", s.owner(), ownerFile), []byte(s.config.Owner), 0o600); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.path("tmp"), "p")
	if err != nil {
		return err
	}
	if s.tmp, err = os.Open(dir); err != nil {
		return err
	}
	if err := flock(s.tmp, true); err != nil {
		return err
	}
	s.sweep("tmp")
	s.sweep("trash")
	s.inspect()
	return nil
}

// sweep removes what is in tmp or trash and belongs to no process that lives.
func (s *Store) sweep(name string) {
	entries, err := os.ReadDir(s.path(name))
	if err != nil {
		s.log.Warn("cannot clean the store of images", "err", err)
	}
	for _, e := range entries {
		p := s.path(name, e.Name())
		f, err := os.Open(p)
		if err == nil {
			if err = flock(f, true); err == nil {
				err = os.RemoveAll(p)
			}
			f.Close()
		}
		if err != nil && !errors.Is(err, errLocked) && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("cannot clean the store of images", "path", p, "err", err)
		}
	}
}

// inspect sets aside what cannot be read, so that it is brought again.
func (s *Store) inspect() {
	names, _ := filepath.Glob(s.path("images", "*.json"))
	for _, p := range names {
		var r record
		_ = s.read(p, &r)
	}
	layers, _ := os.ReadDir(s.path("layers"))
	for _, e := range layers {
		s.layer(e.Name())
	}
}

// sealed is the form of all files: a body with its digest, so that a torn file is known for one.
type sealed struct {
	Sum  string          `json:"sum"`
	Body json.RawMessage `json:"body"`
}

// errTorn is returned for a file that is not what was written.
var errTorn = errors.New("the file is torn")

// write replaces a file. With durable set it is there after a power cut too.
func write(path string, v any, durable bool) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b, err := json.Marshal(sealed{digestOf(body), body})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if durable {
		err = errors.Join(err, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if !durable {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

// load fills v from a file; errTorn if it is not what was written.
func load(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var f sealed
	if json.Unmarshal(b, &f) != nil || digestOf(f.Body) != f.Sum || json.Unmarshal(f.Body, v) != nil {
		return errTorn
	}
	return nil
}

// read is load for what can be brought again: what is torn is set aside.
func (s *Store) read(path string, v any) error {
	err := load(path, v)
	if errors.Is(err, errTorn) {
		s.quarantine(path)
	}
	return err
}

// quarantine sets something aside.
func (s *Store) quarantine(path string) {
	to := s.path("quarantine", fmt.Sprintf("%d-%s", time.Now().UnixNano(), filepath.Base(path)))
	err := os.Rename(path, to)
	s.log.Warn("a torn part of the store of images was set aside", "path", path, "to", to, "err", err)
	old, err := os.ReadDir(s.path("quarantine"))
	if err != nil || len(old) <= quarantineMax {
		return
	}
	for _, e := range old[:len(old)-quarantineMax] { // by name, which is by time
		if err := os.RemoveAll(s.path("quarantine", e.Name())); err != nil {
			s.log.Warn("cannot clean the store of images", "err", err)
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// lock takes the lock of the store: shared to pin, alone to remove. It waits as long as ctx allows, and at most lockWait.
func (s *Store) lock(ctx context.Context, alone bool) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errLockWait)
	defer cancel()
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := flock(f, alone)
		if err == nil {
			return func() { f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, errLocked) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("the store of images is locked: %w", context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ownerFile names in a folder of pins whose they are.
const ownerFile = "owner"

func (s *Store) owner() string { return digestOf([]byte(s.config.Owner))[7:23] }

// pin is what a container holds.
type pin struct {
	Container string `json:"container"`
	Record    record `json:"record"`
	// Root is the copy of the image, where one was made or is about to be.
	Root string `json:"root,omitempty"`
	// torn is set where all but the name of the container is lost.
	torn bool
}

func (s *Store) pinPath(container string) string {
	return s.path("pins", s.owner(), container+".json")
}

func (s *Store) pin(container string) (pin, bool) {
	var p pin
	switch err := load(s.pinPath(container), &p); {
	case err == nil:
		return p, true
	case errors.Is(err, errTorn):
		return pin{Container: container, torn: true}, true
	}
	return p, false
}

func (s *Store) writePin(ctx context.Context, p pin) error {
	unlock, err := s.lock(ctx, false)
	if err != nil {
		return err
	}
	defer unlock()
	// No container outlives a power cut, so its pin need not.
	if err := write(s.pinPath(p.Container), p, false); err != nil {
		return fmt.Errorf("cannot pin image: %w", err)
	}
	return nil
}

func (s *Store) unpin(container string) error {
	if err := os.Remove(s.pinPath(container)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot unpin image: %w", err)
	}
	return nil
}

// pins returns what the containers of an owner hold.
func (s *Store) pins(owner string) ([]pin, error) {
	names, err := filepath.Glob(s.path("pins", owner, "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var found []pin
	for _, name := range names {
		var p pin
		switch err := load(name, &p); {
		case err == nil:
			found = append(found, p)
		case errors.Is(err, errTorn): // it holds something all the same
			found = append(found, pin{Container: strings.TrimSuffix(filepath.Base(name), ".json"), torn: true})
		case errors.Is(err, fs.ErrNotExist):
		default:
			return nil, err
		}
	}
	return found, nil
}
