package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const dirNested = "nested"

// PutNested writes what is known of a container that was launched over the API.
func PutNested(n *Nested) Change {
	name := nestedName(n.GetSequence())
	return Change{what: name, puts: []put{{name, kindNested, n}}}
}

// PutNewNested is PutNested for one that is to be started. It fails with ErrFull while the disk is.
func PutNewNested(n *Nested) Change {
	c := PutNested(n)
	c.intent = true
	return c
}

// EndNested forgets a container that was launched over the API. It takes the place of a PutNested that still waits.
func EndNested(sequence uint64) Change {
	name := nestedName(sequence)
	return Change{what: name, remove: []string{name}}
}

func nestedName(sequence uint64) string {
	return filepath.Join(dirNested, strconv.FormatUint(sequence, 10))
}

// loadNested reads the containers that were launched over the API, oldest first.
func (s *Store) loadNested(l *Loaded) error {
	dir := filepath.Join(s.dir, dirNested)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot read folder: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(dirNested, e.Name())
		if strings.HasSuffix(name, suffixTemp) {
			if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("cannot clear away: %w", err)
			}
			continue
		}
		n := &Nested{}
		if ok, err := s.read(l, name, kindNested, n); err != nil {
			return err
		} else if ok && strconv.FormatUint(n.GetSequence(), 10) == e.Name() {
			l.Nested = append(l.Nested, n)
		}
	}
	slices.SortFunc(l.Nested, func(a, b *Nested) int { return cmp.Compare(a.GetSequence(), b.GetSequence()) })
	return nil
}
