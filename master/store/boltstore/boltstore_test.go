package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"starling/master/store"
	"starling/master/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return mustOpen(t, filepath.Join(t.TempDir(), "new", "master.db")) })
}

func TestDamage(t *testing.T) {
	storetest.RunDamaged(t, func(t *testing.T) (store.Store, func(string)) {
		s := mustOpen(t, filepath.Join(t.TempDir(), "master.db"))
		return s, func(key string) {
			if err := s.db.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket(bucketDocuments).Put([]byte(key), []byte("what is this?"))
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func mustOpen(t *testing.T, path string) *Store {
	t.Helper()
	s, err := open(path, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s *Store, key, data string) uint64 {
	t.Helper()
	v, err := s.Write(t.Context(), store.Op{Key: key, Version: store.Any, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return v[0]
}

func TestDocumentsAndVersionsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.db")
	s := mustOpen(t, path)
	put(t, s, "a", "1")
	last := put(t, s, "b", "2")
	if _, err := s.Write(t.Context(), store.Op{Key: "b", Version: last, Delete: true}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, path)
	if d, err := s.Get(t.Context(), "a"); err != nil || string(d.Data) != "1" {
		t.Errorf("want 1, got %q (%v)", d.Data, err)
	}
	if v := put(t, s, "b", "3"); v <= last {
		t.Errorf("want a version above %d, got %d", last, v)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("want nothing left of the making, got %v (%v)", left, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("want mode 0600, got %v (%v)", info.Mode(), err)
	}
}

func TestASecondProcessIsToldSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.db")
	s := mustOpen(t, path)
	_, err := open(path, 50*time.Millisecond)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("want %v for %q, got %v", ErrLocked, path, err)
	}
	put(t, s, "a", "still there")
}

func TestOfManyThatMakeAStoreOneHasIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.db")
	var group sync.WaitGroup
	opened := make(chan *Store, 8)
	for range cap(opened) {
		group.Go(func() {
			s, err := open(path, time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			// Were one file put in the place of another, a count would be lost.
			d, err := s.Get(t.Context(), "count")
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Error(err)
			}
			if _, err := s.Write(t.Context(), store.Op{Key: "count", Version: d.Version, Data: append(d.Data, 'x')}); err != nil {
				t.Error(err)
			}
			s.Close()
			opened <- s
		})
	}
	group.Wait()
	d, err := mustOpen(t, path).Get(t.Context(), "count")
	if err != nil || len(d.Data) != cap(opened) {
		t.Errorf("want %d openings counted, got %d (%v)", cap(opened), len(d.Data), err)
	}
}

func TestForeignAndDamagedFilesAreRefusedAndLeftAlone(t *testing.T) {
	whole := func(t *testing.T, path string) []byte {
		s := mustOpen(t, path)
		for i := range 50 {
			put(t, s, fmt.Sprintf("frameworks/%d", i), strings.Repeat(fmt.Sprint(i), 400))
		}
		s.Close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, path string) []byte
		want   string
	}{
		{"an empty file", func(*testing.T, string) []byte { return nil }, "empty"},
		{"a text", func(*testing.T, string) []byte { return []byte("{}\n") }, "not a whole store"},
		{"zeros", func(*testing.T, string) []byte { return make([]byte, 1<<16) }, "not a whole store"},
		{"a file that was cut", func(t *testing.T, path string) []byte {
			b := whole(t, path)
			return b[:len(b)/2]
		}, "not a whole store"},
		{"a file that was cut behind its head", func(t *testing.T, path string) []byte {
			return whole(t, path)[:2*os.Getpagesize()]
		}, "not a whole store"},
		{"a document with another byte", func(t *testing.T, path string) []byte {
			b := whole(t, path)
			i := bytes.LastIndex(b, []byte("494949"))
			b[i+1] ^= 1
			return b
		}, "checksum is wrong"},
		{"pages of garbage", func(t *testing.T, path string) []byte {
			b := whole(t, path)
			for i := 2 * os.Getpagesize(); i < len(b); i++ {
				b[i] = byte(i * 7)
			}
			return b
		}, "not a whole store"},
		{"a database of somebody else", func(t *testing.T, path string) []byte {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			db.Close()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}, "some other program"},
		{"a newer format", func(t *testing.T, path string) []byte {
			whole(t, path)
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketStarling).Put(keyFormat, []byte("2")) }); err != nil {
				t.Fatal(err)
			}
			db.Close()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}, "newer version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master.db")
			damaged := tt.damage(t, path)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := open(path, 100*time.Millisecond)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(fmt.Sprint(err), tt.want) || !strings.Contains(fmt.Sprint(err), path) {
				t.Fatalf("want %v with %q and the path, got %v", ErrDamaged, tt.want, err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(after, damaged) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Errorf("a folder: got %v", err)
	}
	below := filepath.Join(dir, "file")
	if err := os.WriteFile(below, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(below, "master.db")); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file as a folder: got %v", err)
	}
}

// A power cut leaves any part of what was written since the last sync. bbolt writes pages, syncs, writes one meta page,
// syncs: so before the first sync any of the new pages may be there, and after it the meta page may be torn. Whatever was
// acknowledged before has to be there, and the write that was cut is there whole or not at all.
func TestPowerCuts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	path := filepath.Join(dir, "master.db")
	s := mustOpen(t, path)
	page := os.Getpagesize()
	state := make(map[string]string)
	for round := range 200 {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key, data := fmt.Sprintf("k/%d", rng.IntN(20)), strings.Repeat(fmt.Sprint(round, ";"), 1+rng.IntN(1500))
		old, had := state[key]
		put(t, s, key, data)
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := bytes.Clone(after)
		before = append(before, make([]byte, max(0, len(after)-len(before)))...)
		if rng.IntN(2) == 0 {
			copy(cut, before[:2*page])
			for i := 2 * page; i < len(cut); i += page {
				if rng.IntN(2) == 0 {
					copy(cut[i:], before[i:min(i+page, len(before))])
				}
			}
		} else {
			torn := rng.IntN(2 * page)
			copy(cut[torn:2*page], before[torn:])
		}
		other := filepath.Join(dir, "cut.db")
		if err := os.WriteFile(other, cut, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := open(other, time.Second)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		state[key] = data
		for k, want := range state {
			d, err := c.Get(t.Context(), k)
			if k == key && (!had && errors.Is(err, store.ErrNotFound) || had && err == nil && string(d.Data) == old) {
				continue
			}
			if err != nil || string(d.Data) != want {
				t.Fatalf("round %d: %q: want %d bytes, got %d (%v)", round, k, len(want), len(d.Data), err)
			}
		}
		c.Close()
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("a/b"), encode([]byte("a/b"), 7, []byte("data")))
	f.Add([]byte(""), []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		version, data, err := decode(key, value)
		if err == nil && !bytes.Equal(encode(key, version, data), value) {
			t.Errorf("want %x again, got %x", value, encode(key, version, data))
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "master.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := bytes.Repeat([]byte("x"), 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(b.Context(), store.Op{Key: "frameworks/1", Version: store.Any, Data: data}); err != nil {
			b.Fatal(err)
		}
	}
}
