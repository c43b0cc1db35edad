package election_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"starling/master/election"
	"starling/master/election/electiontest"
	"starling/master/store"
	"starling/master/store/storetest"
)

func TestAlone(t *testing.T) {
	electiontest.Run(t, func(*testing.T) electiontest.Election {
		return electiontest.Election{
			Single: true,
			Join: func(*testing.T) (election.Contender, election.Detector) {
				a := election.NewAlone(new(storetest.Fake), nil)
				return a, a
			},
		}
	})
}

// once leads for one term, and returns its epoch.
func once(t *testing.T, s store.Store, heard uint64) (uint64, error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var epoch uint64
	a := election.NewAlone(s, func() uint64 { return heard })
	err := a.Run(ctx, election.Candidate{ID: "one"}, func(_ context.Context, term election.Term) error {
		epoch = term.Epoch
		stop()
		return nil
	})
	return epoch, err
}

func TestEachStartRaisesTheEpochAboveAllThatWasHeard(t *testing.T) {
	s := new(storetest.Fake)
	for _, tt := range []struct {
		name        string
		heard, want uint64
	}{
		{"a new store begins with 1", 0, 1},
		{"a second start takes the next", 0, 2},
		{"what was heard below it does not matter", 1, 3},
		{"what was heard above it does: the store may be a rebuilt one", 41, 42},
		{"and stays", 0, 43},
		{"what no count can have reached is a lie", math.MaxUint64, 44},
	} {
		got, err := once(t, s, tt.heard)
		if err != nil || got != tt.want {
			t.Errorf("%s: want epoch %d, got %d (%v)", tt.name, tt.want, got, err)
		}
	}
}

func TestALostStoreIsTold(t *testing.T) {
	s := new(storetest.Fake)
	var told bytes.Buffer
	log := slog.New(slog.NewTextHandler(&told, nil))
	for i, test := range []struct {
		heard, want uint64
		told        bool
	}{{6, 7, true}, {7, 8, false}, {6, 9, false}} {
		told.Reset()
		if epoch, err := election.Raise(t.Context(), s, test.heard, log); err != nil || epoch != test.want {
			t.Errorf("raise %d: epoch %d, %v", i, epoch, err)
		}
		if got := strings.Contains(told.String(), "level=WARN"); got != test.told {
			t.Errorf("raise %d: the log says %q", i, told.String())
		}
	}
	told.Reset()
	if _, err := election.Raise(t.Context(), new(storetest.Fake), 0, log); err != nil || told.Len() > 0 {
		t.Errorf("the first master of all: %v, and the log says %q", err, told.String())
	}
}

func TestAnUnreadableEpochEndsTheElection(t *testing.T) {
	for _, data := range []string{"", "{", `{"format":2,"epoch":7}`, `{"format":1,"epoch":18446744073709551615}`} {
		s := new(storetest.Fake)
		op := store.Op{Key: "election/epoch", Data: []byte(data)}
		if _, err := s.Write(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		epoch, err := once(t, s, 0)
		if !errors.Is(err, election.ErrEpoch) || epoch != 0 {
			t.Errorf("%q: want %v, got epoch %d (%v)", data, election.ErrEpoch, epoch, err)
		}
		if d, err := s.Get(t.Context(), op.Key); err != nil || string(d.Data) != data {
			t.Errorf("%q was overwritten with %q (%v)", data, d.Data, err)
		}
	}
}

func TestRacingRaisesGetEpochsOfTheirOwn(t *testing.T) {
	s := new(storetest.Fake)
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	for range 20 {
		group.Go(func() {
			epoch, err := election.Raise(t.Context(), s, 0, nil)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[epoch] {
				t.Errorf("epoch %d came twice, or %v", epoch, err)
			}
			seen[epoch] = true
		})
	}
	group.Wait()
}

func TestAStoreThatComesBackIsWaitedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(storetest.Fake)
		s.Fail(errors.New("disk is full"))
		ctx, stop := context.WithCancel(t.Context())
		led := make(chan uint64, 1)
		done := make(chan error, 1)
		a := election.NewAlone(s, nil)
		go func() {
			done <- a.Run(ctx, election.Candidate{ID: "one"}, func(ctx context.Context, term election.Term) error {
				led <- term.Epoch
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		if err := a.Run(ctx, election.Candidate{}, nil); err == nil {
			t.Error("a second Run: want an error")
		}
		s.Fail(nil)
		if epoch := <-led; epoch != 1 {
			t.Errorf("want epoch 1, got %d", epoch)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("want no error, got %v", err)
		}

		full := errors.New("disk is full for ever")
		s.Fail(full)
		if _, err := once(t, s, 0); !errors.Is(err, full) {
			t.Errorf("want %v, got %v", full, err)
		}
	})
}
