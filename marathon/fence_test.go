package marathon

import (
	"context"
	"errors"
	"testing"

	"starling/marathon/mastertest"
	"starling/master/election"
	"starling/master/store"
)

// deaf is a store that does what it is told, and whose answer gets lost.
type deaf struct {
	store.Store
	lost bool
}

var errLost = errors.New("connection lost")

func (d *deaf) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	versions, err := d.Store.Write(ctx, ops...)
	if d.lost {
		d.lost = false
		return nil, errLost
	}
	return versions, err
}

func put(key, value string) store.Op {
	return store.Op{Key: key, Version: store.Any, Data: []byte(value)}
}

func TestFenceKeepsAnEarlierLeaderFromWriting(t *testing.T) {
	st := mastertest.NewStore()
	first, err := claim(t.Context(), st, election.Term{Epoch: 1}, "a:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"one", "two"} {
		if _, err := first.Write(t.Context(), put("x", value)); err != nil {
			t.Fatal(err)
		}
	}
	second, err := claim(t.Context(), st, election.Term{Epoch: 2}, "b:1")
	if err != nil {
		t.Fatal(err)
	}
	writes := st.Writes()
	if _, err := first.Write(t.Context(), put("x", "late")); !errors.Is(err, errFenced) {
		t.Errorf("the earlier leader wrote, and got %v", err)
	}
	if _, err := claim(t.Context(), st, election.Term{Epoch: 1}, "a:1"); !errors.Is(err, errFenced) {
		t.Errorf("the earlier leader claimed the state again, and got %v", err)
	}
	if st.Writes() != writes {
		t.Error("something was written")
	}
	if _, err := second.Write(t.Context(), put("x", "three")); err != nil {
		t.Errorf("the leader can't write: %v", err)
	}
}

func TestFenceKnowsItsOwnWrites(t *testing.T) {
	st := &deaf{Store: mastertest.NewStore()}
	f, err := claim(t.Context(), st, election.Term{Epoch: 1}, "a:1")
	if err != nil {
		t.Fatal(err)
	}
	st.lost = true
	if _, err := f.Write(t.Context(), put("x", "one")); !errors.Is(err, errLost) {
		t.Fatalf("got %v", err)
	}
	if _, err := f.Write(t.Context(), put("x", "one")); err != nil {
		t.Errorf("a write whose answer was lost is not repeated: %v", err)
	}
	versions, err := f.Write(t.Context(), store.Op{Key: "x", Version: 7, Data: []byte("two")})
	if !errors.Is(err, store.ErrConflict) || errors.Is(err, errFenced) {
		t.Errorf("a condition that does not hold gives %v, %v", versions, err)
	}
}

func TestFenceFallsWithTheLease(t *testing.T) {
	st := mastertest.NewStore()
	lost := false
	term := election.Term{Epoch: 1, Lease: func() error {
		if lost {
			return election.ErrLeaseLost
		}
		return nil
	}}
	f, err := claim(t.Context(), st, term, "a:1")
	if err != nil {
		t.Fatal(err)
	}
	lost = true
	writes := st.Writes()
	if _, err := f.Write(t.Context(), put("x", "late")); !errors.Is(err, errFenced) || st.Writes() != writes {
		t.Errorf("a write after the lease gave %v", err)
	}
	if _, err := claim(t.Context(), st, term, "a:1"); !errors.Is(err, errFenced) {
		t.Errorf("a claim after the lease gave %v", err)
	}
}

// damaged is a store whose fence document can't be read any more.
type damaged struct {
	store.Store
	now bool
}

func (d *damaged) Get(ctx context.Context, key string) (store.Document, error) {
	if d.now && key == fenceKey {
		return store.Document{}, store.ErrDamaged
	}
	return d.Store.Get(ctx, key)
}

func (d *damaged) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	if d.now {
		return nil, store.ErrConflict
	}
	return d.Store.Write(ctx, ops...)
}

// A fence that can't be read ends the term: the next claim puts it right.
func TestDamagedFenceEndsTheTerm(t *testing.T) {
	st := &damaged{Store: mastertest.NewStore()}
	f, err := claim(t.Context(), st, election.Term{Epoch: 1}, "a:1")
	if err != nil {
		t.Fatal(err)
	}
	st.now = true
	if _, err := f.Write(t.Context(), put("x", "one")); !errors.Is(err, errFenced) {
		t.Errorf("got %v, want %v", err, errFenced)
	}
}
