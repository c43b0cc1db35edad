// Package storetest holds what every document store must pass, and a fake that passes it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"starling/master/store"
)

// Run tests a store. Open returns a new, empty one for each test, and cleans up after it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"a document that was written is read again", written},
		{"a document that does not exist is not found", notFound},
		{"versions grow with every write of a key, over a delete too", versions},
		{"a write whose condition does not hold changes nothing", conditions},
		{"a transaction writes all or nothing", transaction},
		{"a transaction may be larger than a document", largeTransaction},
		{"documents are listed by prefix and in order", list},
		{"what is too large or no key is refused", refusals},
		{"what goes in and out is not shared", copies},
		{"a call after the end of its context fails", ended},
		{"a closed store says so", closed},
		{"of writers that race for a version one wins", race},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("cannot close: %v", err)
				}
			})
			tt.test(t, s)
		})
	}
}

// RunDamaged tests what a store makes of a document that is damaged. Open returns a new, empty one, and what damages the document
// at a key.
func RunDamaged(t *testing.T, open func(t *testing.T) (s store.Store, damage func(key string))) {
	s, damage := open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("cannot close: %v", err)
		}
	})
	old := write(t, s, put("a/1", "one"), put("a/2", "two"), put("a/3", "three"), put("b", "beside"))
	told := func(err error, keys ...string) {
		t.Helper()
		if !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("want %v, got %v", store.ErrDamaged, err)
		}
		for _, key := range keys {
			if !strings.Contains(err.Error(), key) {
				t.Errorf("%v does not name %q", err, key)
			}
		}
	}
	list := func(damaged ...string) []store.Document {
		t.Helper()
		docs, err := s.List(t.Context(), "a/")
		if len(damaged) > 0 {
			told(err, damaged...)
		} else if err != nil {
			t.Fatal(err)
		}
		if len(docs) != 3 {
			t.Fatalf("listed are %v", docs)
		}
		for i, d := range docs {
			key := fmt.Sprintf("a/%d", i+1)
			is := strings.Contains(strings.Join(damaged, " "), key)
			if d.Key != key || d.Version == 0 || d.Version == store.Any || is != (d.Damage != nil) || is != (len(d.Data) == 0) {
				t.Errorf("%q is listed as %+v", key, d)
			}
			if is {
				told(d.Damage, key)
			}
		}
		return docs
	}
	damage("a/1")
	damage("a/2")
	docs := list("a/1", "a/2")
	_, err := s.Get(t.Context(), "a/1")
	told(err, "a/1")
	want(t, s, "a/3", "three")
	if docs, err := s.List(t.Context(), "b"); err != nil || len(docs) != 1 {
		t.Errorf("beside the damage %v are listed, %v", docs, err)
	}
	// It is there, and is what it is by now.
	for _, version := range []uint64{0, old[0] + 100, docs[0].Version - 1} {
		if _, err := s.Write(t.Context(), store.Op{Key: "a/1", Version: version, Data: []byte("x")}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("a write on condition of version %d: want %v, got %v", version, store.ErrConflict, err)
		}
	}
	v := write(t, s, store.Op{Key: "a/1", Version: docs[0].Version, Data: []byte("mended")})[0]
	if d := want(t, s, "a/1", "mended"); d.Version != v {
		t.Errorf("want version %d, got %d", v, d.Version)
	}
	if _, err := s.Write(t.Context(), store.Op{Key: "a/1", Version: docs[0].Version, Data: []byte("x")}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a write that comes late: want %v, got %v", store.ErrConflict, err)
	}
	if next := write(t, s, put("a/1", "again"))[0]; next <= v {
		t.Errorf("version %d follows %d", next, v)
	}
	list("a/2")
	write(t, s, put("a/2", "mended too"))
	list()
}

func write(t *testing.T, s store.Store, ops ...store.Op) []uint64 {
	t.Helper()
	v, err := s.Write(t.Context(), ops...)
	if err != nil {
		t.Fatalf("cannot write: %v", err)
	}
	if len(v) != len(ops) {
		t.Fatalf("want %d versions, got %d", len(ops), len(v))
	}
	return v
}

func put(key, data string) store.Op {
	return store.Op{Key: key, Version: store.Any, Data: []byte(data)}
}

func want(t *testing.T, s store.Store, key, data string) store.Document {
	t.Helper()
	d, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("cannot get %q: %v", key, err)
	}
	if d.Key != key || string(d.Data) != data {
		t.Errorf("want %q at %q, got %q at %q", data, key, d.Data, d.Key)
	}
	return d
}

func absent(t *testing.T, s store.Store, key string) {
	t.Helper()
	if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %q: want %v, got %v", key, store.ErrNotFound, err)
	}
}

func written(t *testing.T, s store.Store) {
	for _, data := range []string{"", "one", strings.Repeat("x", store.MaxSize)} {
		v := write(t, s, put("a/b", data))
		if d := want(t, s, "a/b", data); d.Version != v[0] {
			t.Errorf("want version %d, got %d", v[0], d.Version)
		}
	}
	write(t, s) // nothing
}

func notFound(t *testing.T, s store.Store) {
	absent(t, s, "a")
	write(t, s, put("a/b", "1"))
	absent(t, s, "a")
	absent(t, s, "a/b/c")
	v := write(t, s, store.Op{Key: "gone", Version: store.Any, Delete: true})
	if v[0] != 0 {
		t.Errorf("want version 0 for a delete, got %d", v[0])
	}
}

func versions(t *testing.T, s store.Store) {
	last := uint64(0)
	for i := range 4 {
		v := write(t, s, put("a", fmt.Sprint(i)))[0]
		if v <= last || v == store.Any {
			t.Fatalf("want a version above %d, got %d", last, v)
		}
		last = v
		write(t, s, put("b", "x"), store.Op{Key: "a", Version: v, Delete: true})
	}
	v := write(t, s, put("a", "x"))[0]
	if _, err := s.Write(t.Context(), store.Op{Key: "a", Version: last, Data: []byte("y")}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a version of before the delete: want %v, got %v", store.ErrConflict, err)
	}
	if d := want(t, s, "a", "x"); d.Version != v {
		t.Errorf("want version %d, got %d", v, d.Version)
	}
}

func conditions(t *testing.T, s store.Store) {
	refuse := func(op store.Op) {
		t.Helper()
		if _, err := s.Write(t.Context(), op); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%+v: want %v, got %v", op, store.ErrConflict, err)
		}
	}
	refuse(store.Op{Key: "a", Version: 7, Data: []byte("x")})
	refuse(store.Op{Key: "a", Version: 7, Delete: true})
	absent(t, s, "a")
	v := write(t, s, store.Op{Key: "a", Data: []byte("1")})[0]
	refuse(store.Op{Key: "a", Data: []byte("x")})
	refuse(store.Op{Key: "a", Delete: true})
	refuse(store.Op{Key: "a", Version: v + 1, Data: []byte("x")})
	want(t, s, "a", "1")
	v2 := write(t, s, store.Op{Key: "a", Version: v, Data: []byte("2")})[0]
	refuse(store.Op{Key: "a", Version: v, Data: []byte("x")})
	refuse(store.Op{Key: "a", Version: v, Delete: true})
	want(t, s, "a", "2")
	write(t, s, store.Op{Key: "a", Version: v2, Delete: true})
	absent(t, s, "a")
	write(t, s, store.Op{Key: "a", Delete: true}) // must not exist, and does not
}

func transaction(t *testing.T, s store.Store) {
	v := write(t, s, put("a", "1"), put("b", "1"))
	_, err := s.Write(t.Context(),
		store.Op{Key: "a", Version: v[0], Data: []byte("2")},
		store.Op{Key: "b", Version: v[1] + 99, Data: []byte("2")},
		store.Op{Key: "c", Data: []byte("2")},
	)
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("want %v, got %v", store.ErrConflict, err)
	}
	want(t, s, "a", "1")
	want(t, s, "b", "1")
	absent(t, s, "c")
	write(t, s, store.Op{Key: "a", Version: v[0], Data: []byte("2")}, store.Op{Key: "b", Version: v[1], Delete: true}, put("c", "2"))
	want(t, s, "a", "2")
	absent(t, s, "b")
	want(t, s, "c", "2")
}

func largeTransaction(t *testing.T, s store.Store) {
	data := strings.Repeat("x", store.MaxSize)
	var ops []store.Op
	for i := range 12 {
		ops = append(ops, put(fmt.Sprintf("a/%d", i), data))
	}
	write(t, s, ops...)
	for _, op := range ops {
		if d, err := s.Get(t.Context(), op.Key); err != nil || string(d.Data) != data {
			t.Errorf("want %d bytes at %q, got %d (%v)", len(data), op.Key, len(d.Data), err)
		}
	}
}

func list(t *testing.T, s store.Store) {
	keys := []string{"frameworks/10", "frameworks/1", "frameworks/2", "frameworksx", "weights", "ä/é"}
	for _, key := range keys {
		write(t, s, put(key, key))
	}
	for prefix, want := range map[string][]string{
		"":              {"frameworks/1", "frameworks/10", "frameworks/2", "frameworksx", "weights", "ä/é"},
		"frameworks/":   {"frameworks/1", "frameworks/10", "frameworks/2"},
		"frameworks/1":  {"frameworks/1", "frameworks/10"},
		"frameworks":    {"frameworks/1", "frameworks/10", "frameworks/2", "frameworksx"},
		"frameworks/3":  nil,
		"weights":       {"weights"},
		"weights/extra": nil,
	} {
		docs, err := s.List(t.Context(), prefix)
		if err != nil {
			t.Fatalf("cannot list %q: %v", prefix, err)
		}
		var got []string
		for _, d := range docs {
			got = append(got, d.Key)
			if string(d.Data) != d.Key || d.Version == 0 {
				t.Errorf("%q holds %q in version %d", d.Key, d.Data, d.Version)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("list %q (-want +got):\n%s", prefix, diff)
		}
	}
}

func refusals(t *testing.T, s store.Store) {
	full := bytes.Repeat([]byte("x"), store.MaxSize)
	var many []store.Op
	for i := range store.MaxTransaction/store.MaxSize + 1 {
		many = append(many, store.Op{Key: fmt.Sprintf("many/%d", i), Data: full})
	}
	for _, tt := range []struct {
		name string
		ops  []store.Op
		want error
	}{
		{"a document above the limit", []store.Op{{Key: "a", Data: make([]byte, store.MaxSize+1)}}, store.ErrTooLarge},
		{"a transaction above the limit", many, store.ErrTooLarge},
		{"an empty key", []store.Op{{Key: ""}}, store.ErrInvalid},
		{"a key with a leading slash", []store.Op{{Key: "/a"}}, store.ErrInvalid},
		{"a key with a trailing slash", []store.Op{{Key: "a/"}}, store.ErrInvalid},
		{"a key with an empty segment", []store.Op{{Key: "a//b"}}, store.ErrInvalid},
		{"a key that climbs", []store.Op{{Key: "a/../b"}}, store.ErrInvalid},
		{"a key with a control character", []store.Op{{Key: "a\x00b"}}, store.ErrInvalid},
		{"a key above the limit", []store.Op{{Key: strings.Repeat("a", store.MaxKey+1)}}, store.ErrInvalid},
		{"a key twice", []store.Op{{Key: "a"}, {Key: "a", Version: store.Any, Delete: true}}, store.ErrInvalid},
	} {
		if _, err := s.Write(t.Context(), append(tt.ops, put("other", "x"))...); !errors.Is(err, tt.want) {
			t.Errorf("%s: want %v, got %v", tt.name, tt.want, err)
		}
	}
	if docs, err := s.List(t.Context(), ""); err != nil || len(docs) > 0 {
		t.Errorf("want no documents, got %d (%v)", len(docs), err)
	}
	if _, err := s.Get(t.Context(), "a//b"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("get: want %v, got %v", store.ErrInvalid, err)
	}
	write(t, s, put(strings.Repeat("a", store.MaxKey), "x"))
}

func copies(t *testing.T, s store.Store) {
	data := []byte("1234")
	write(t, s, store.Op{Key: "a", Data: data})
	data[0] = 'x'
	d := want(t, s, "a", "1234")
	d.Data[0] = 'y'
	want(t, s, "a", "1234")
	docs, err := s.List(t.Context(), "")
	if err != nil || len(docs) != 1 {
		t.Fatalf("want one document, got %d (%v)", len(docs), err)
	}
	docs[0].Data[0] = 'z'
	want(t, s, "a", "1234")
}

func ended(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Write(ctx, put("a", "1")); !errors.Is(err, context.Canceled) {
		t.Errorf("write: want %v, got %v", context.Canceled, err)
	}
	if _, err := s.Get(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: want %v, got %v", context.Canceled, err)
	}
	if _, err := s.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("list: want %v, got %v", context.Canceled, err)
	}
}

func closed(t *testing.T, s store.Store) {
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("cannot close: %v", err)
		}
	}
	if _, err := s.Write(t.Context(), put("a", "1")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("write: want %v, got %v", store.ErrClosed, err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("get: want %v, got %v", store.ErrClosed, err)
	}
	if _, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrClosed) {
		t.Errorf("list: want %v, got %v", store.ErrClosed, err)
	}
}

func race(t *testing.T, s store.Store) {
	const writers, rounds = 8, 5
	write(t, s, put("count", "0"))
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for done := 0; done < rounds; {
				d, err := s.Get(t.Context(), "count")
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(d.Data), &n)
				_, err = s.Write(t.Context(), store.Op{Key: "count", Version: d.Version, Data: fmt.Append(nil, n+1)})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	want(t, s, "count", fmt.Sprint(writers*rounds))
}
