// Package electiontest holds what every election must pass, and a fake whose leases a test can end.
package electiontest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"starling/master/election"
)

// Election is one election under test.
type Election struct {
	// Join adds a contender and a detector. It is called once where Single is set.
	Join   func(t *testing.T) (election.Contender, election.Detector)
	Single bool
	// Expire ends the lease of a contender that leads; nil where nothing can.
	Expire func(t *testing.T, c election.Contender)
	// Patience is how long something may take that has to happen; 0 is a minute.
	Patience time.Duration
}

// Run tests an election. Open returns a new one for each test, and cleans up after it.
func Run(t *testing.T, open func(t *testing.T) Election) {
	tests := []struct {
		name string
		// many and lease say what the test needs.
		many, lease bool
		test        func(*testing.T, Election)
	}{
		{"a single contender leads until its context ends", false, false, single},
		{"a lead that fails ends Run with its error", false, false, failing},
		{"a lead that gives up gets another term with a higher epoch", false, false, resigning},
		{"a detector tells who leads, and waits for news", false, false, detecting},
		{"a second contender follows the first, with a higher epoch", true, false, following},
		{"a lost lease ends the term with its cause, and the contender stands again", false, true, expiring},
		{"another leads after a lost lease, with a higher epoch", true, true, replacing},
		{"of many contenders one leads at a time, and no epoch comes twice", true, false, crowd},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t)
			if e.Patience == 0 {
				e.Patience = time.Minute
			}
			if tt.many && e.Single || tt.lease && e.Expire == nil {
				return // cannot happen to this one
			}
			tt.test(t, e)
		})
	}
}

// leading is a term that a contender under test is in.
type leading struct {
	ctx   context.Context
	epoch uint64
	leave chan error // what lead returns
}

// runner runs a contender whose terms wait for the test.
type runner struct {
	t         *testing.T
	e         Election
	contender election.Contender
	detector  election.Detector
	candidate election.Candidate
	terms     chan *leading
	stop      context.CancelFunc
	done      chan error
}

func start(t *testing.T, e Election, name string) *runner {
	t.Helper()
	r := &runner{
		t: t, e: e, terms: make(chan *leading), done: make(chan error, 1),
		candidate: election.Candidate{ID: name, Hostname: name + ".example.com", Address: "10.0.0.1", Port: 5050, Version: "1"},
	}
	r.contender, r.detector = e.Join(t)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		r.done <- r.contender.Run(ctx, r.candidate, func(ctx context.Context, term election.Term) error {
			l := &leading{ctx: ctx, epoch: term.Epoch, leave: make(chan error, 1)}
			select {
			case r.terms <- l:
			case <-ctx.Done():
				return nil
			}
			select {
			case err := <-l.leave:
				return err
			case <-ctx.Done():
				// A lead that tidies up takes its time, and nobody may hurry it.
				return <-l.leave
			}
		})
	}()
	t.Cleanup(stop)
	return r
}

// lead waits for the next term.
func (r *runner) lead() *leading {
	r.t.Helper()
	select {
	case l := <-r.terms:
		if l.epoch == 0 {
			r.t.Fatal("want an epoch above 0")
		}
		return l
	case err := <-r.done:
		r.t.Fatalf("contender %q ended: %v", r.candidate.ID, err)
	case <-time.After(r.e.Patience):
		r.t.Fatalf("contender %q does not lead", r.candidate.ID)
	}
	return nil
}

// ended waits for the end of Run.
func (r *runner) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(r.e.Patience):
		r.t.Fatalf("contender %q does not end", r.candidate.ID)
	}
	return nil
}

// over waits for the end of a term.
func (r *runner) over(l *leading) {
	r.t.Helper()
	select {
	case <-l.ctx.Done():
	case <-time.After(r.e.Patience):
		r.t.Fatalf("the term of %q does not end", r.candidate.ID)
	}
}

func single(t *testing.T, e Election) {
	r := start(t, e, "one")
	l := r.lead()
	if l.ctx.Err() != nil {
		t.Fatal("the term is over as it begins")
	}
	r.stop()
	r.over(l)
	select {
	case err := <-r.done:
		t.Fatalf("Run ended before lead did: %v", err)
	default:
	}
	l.leave <- nil
	if err := r.ended(); err != nil {
		t.Errorf("want no error, got %v", err)
	}
}

func failing(t *testing.T, e Election) {
	r := start(t, e, "one")
	broken := errors.New("broken")
	r.lead().leave <- broken
	if err := r.ended(); !errors.Is(err, broken) {
		t.Errorf("want %v, got %v", broken, err)
	}
}

func resigning(t *testing.T, e Election) {
	r := start(t, e, "one")
	last := uint64(0)
	for range 3 {
		l := r.lead()
		if l.epoch <= last {
			t.Fatalf("want an epoch above %d, got %d", last, l.epoch)
		}
		last = l.epoch
		l.leave <- nil
	}
	r.lead().leave <- nil
	r.stop()
	if err := r.ended(); err != nil {
		t.Errorf("want no error, got %v", err)
	}
}

// sees waits until a detector tells of a leader (nil: of none), which may take several pieces of news.
func sees(t *testing.T, e Election, d election.Detector, known, want *election.Candidate) *election.Candidate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), e.Patience)
	defer cancel()
	for {
		got, err := d.Leader(ctx, known)
		if err != nil {
			t.Fatalf("want leader %v, got none of it: %v", want, err)
		}
		if got == nil && want == nil || got != nil && want != nil && *got == *want {
			return got
		}
		known = got
	}
}

func detecting(t *testing.T, e Election) {
	r := start(t, e, "one")
	l := r.lead()
	known := sees(t, e, r.detector, nil, &r.candidate)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := r.detector.Leader(ctx, known); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without news: want %v, got %v (%v)", context.DeadlineExceeded, err, got)
	}
	r.stop()
	l.leave <- nil
	if err := r.ended(); err != nil {
		t.Fatal(err)
	}
	if e.Single {
		sees(t, e, r.detector, known, nil)
	}
}

func following(t *testing.T, e Election) {
	one := start(t, e, "one")
	first := one.lead()
	two := start(t, e, "two")
	sees(t, e, two.detector, nil, &one.candidate)
	select {
	case <-two.terms:
		t.Fatal("two lead at once")
	default:
	}
	one.stop()
	first.leave <- nil
	if err := one.ended(); err != nil {
		t.Fatal(err)
	}
	second := two.lead()
	if second.epoch <= first.epoch {
		t.Errorf("want an epoch above %d, got %d", first.epoch, second.epoch)
	}
	sees(t, e, two.detector, &one.candidate, &two.candidate)
	two.stop()
	second.leave <- nil
	if err := two.ended(); err != nil {
		t.Fatal(err)
	}
}

func expiring(t *testing.T, e Election) {
	r := start(t, e, "one")
	first := r.lead()
	e.Expire(t, r.contender)
	r.over(first)
	if cause := context.Cause(first.ctx); !errors.Is(cause, election.ErrLeaseLost) {
		t.Errorf("want cause %v, got %v", election.ErrLeaseLost, cause)
	}
	select {
	case <-r.terms:
		t.Fatal("a term begins before the last one's lead returned")
	case <-time.After(50 * time.Millisecond):
	}
	first.leave <- errors.New("what a term that was lost returns does not matter")
	second := r.lead()
	if second.epoch <= first.epoch {
		t.Errorf("want an epoch above %d, got %d", first.epoch, second.epoch)
	}
	r.stop()
	second.leave <- nil
	if err := r.ended(); err != nil {
		t.Errorf("want no error, got %v", err)
	}
}

func replacing(t *testing.T, e Election) {
	one := start(t, e, "one")
	first := one.lead()
	two := start(t, e, "two")
	sees(t, e, two.detector, nil, &one.candidate)
	e.Expire(t, one.contender)
	second := two.lead() // while the first still tidies up
	if second.epoch <= first.epoch {
		t.Errorf("want an epoch above %d, got %d", first.epoch, second.epoch)
	}
	one.over(first)
	first.leave <- nil
	sees(t, e, one.detector, &one.candidate, &two.candidate)
	one.stop()
	two.stop()
	second.leave <- nil
	if err := errors.Join(one.ended(), two.ended()); err != nil {
		t.Fatal(err)
	}
}

func crowd(t *testing.T, e Election) {
	const contenders, terms = 5, 3
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var leaders atomic.Int32
	epochs := make(chan uint64)
	done := make(chan error, contenders)
	for i := range contenders {
		c, _ := e.Join(t)
		go func() {
			done <- c.Run(ctx, election.Candidate{ID: fmt.Sprint(i), Port: i + 1}, func(ctx context.Context, term election.Term) error {
				if leaders.Add(1) > 1 {
					t.Error("two lead at once")
				}
				defer leaders.Add(-1)
				select {
				case epochs <- term.Epoch:
				case <-ctx.Done():
				}
				return nil // gives up
			})
		}()
	}
	last := uint64(0)
	for range contenders * terms {
		select {
		case epoch := <-epochs:
			if epoch <= last {
				t.Errorf("want an epoch above %d, got %d", last, epoch)
			}
			last = epoch
		case <-time.After(e.Patience):
			t.Fatal("nobody leads")
		}
	}
	stop()
	for range contenders {
		if err := <-done; err != nil {
			t.Errorf("want no error, got %v", err)
		}
	}
}
