package marathon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"starling/master/election"
	"starling/master/store"
)

// errFenced tells that another one has led since: nothing was written.
var errFenced = errors.New("the state belongs to a later leader")

// fenceKey is the document that every write of a leader changes too, so that one that was frozen, or cut off, can write nothing
// once another one has claimed the state.
//
// History of the format: 1, 2026-11, first version.
const (
	fenceKey    = "election/leader"
	fenceFormat = 1
)

type fenceDocument struct {
	Format  int    `json:"format"`
	Epoch   uint64 `json:"epoch"`
	Address string `json:"address"`
}

// fence is a store that takes writes for one term alone. Reading is what the store makes of it.
type fence struct {
	store.Store
	term election.Term
	mark []byte // what the document holds while the fence stands

	turn    chan struct{} // holds a token while somebody writes, who owns what follows
	version uint64        // of the document, as far as known
}

// claim puts the fence up: from here on whoever led before writes nothing more.
func claim(ctx context.Context, s store.Store, term election.Term, address string) (*fence, error) {
	mark, err := json.Marshal(fenceDocument{Format: fenceFormat, Epoch: term.Epoch, Address: address})
	if err != nil {
		return nil, err
	}
	f := &fence{Store: s, term: term, mark: mark, turn: make(chan struct{}, 1)}
	for {
		if err := f.holds(); err != nil {
			return nil, err
		}
		var there fenceDocument
		d, err := s.Get(ctx, fenceKey)
		switch {
		case errors.Is(err, store.ErrNotFound):
			d.Version = 0
		case errors.Is(err, store.ErrDamaged):
			d.Version = store.Any
		case err != nil:
			return nil, err
		default:
			if err := json.Unmarshal(d.Data, &there); err != nil {
				there = fenceDocument{}
			}
		}
		if there.Epoch > term.Epoch {
			return nil, fmt.Errorf("%w: %s, of epoch %d", errFenced, there.Address, there.Epoch)
		}
		versions, err := s.Write(ctx, store.Op{Key: fenceKey, Version: d.Version, Data: mark})
		if err == nil {
			f.version = versions[0]
			return f, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
	}
}

// holds returns an errFenced once the term is over by the clock.
func (f *fence) holds() error {
	if err := f.term.Holds(); err != nil {
		return fmt.Errorf("%w: %w", errFenced, err)
	}
	return nil
}

// Write implements store.Store. It returns errFenced where another one has led since.
func (f *fence) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		if err := f.holds(); err != nil {
			return nil, err
		}
		versions, err := f.Store.Write(ctx, append(slices.Clip(ops), store.Op{Key: fenceKey, Version: f.version, Data: f.mark})...)
		if err == nil {
			f.version = versions[len(ops)]
			return versions[:len(ops)], nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
		// It may be another one's by now, or a write of our own has been done whose answer was lost.
		d, gone := f.Get(ctx, fenceKey)
		switch {
		case errors.Is(gone, store.ErrNotFound), gone == nil && !bytes.Equal(d.Data, f.mark):
			return nil, errFenced
		case errors.Is(gone, store.ErrDamaged):
			// Nobody can tell whose it is any more. The next claim puts it right.
			return nil, fmt.Errorf("%w: or nobody's any more: %w", errFenced, gone)
		case gone != nil:
			return nil, gone
		case d.Version == f.version:
			return nil, err // a condition of the caller's
		}
		f.version = d.Version
	}
}
