package state

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"starling/master/store"
)

const (
	// Prefix is that of the keys of all documents.
	Prefix = prefix
	// Restored is the key of the document that is there since the state was restored from a backup: what was launched after
	// the backup was made is not known, so nothing is killed for that.
	Restored = prefix + "restored"
	// Settled is the key of the document that says when the doubt after a restore was settled last: whatever is unknown and
	// older is not wanted any more.
	Settled = prefix + "settled"
	// Deployments is what the keys of deployments begin with.
	Deployments = plans
)

type restoredDocument struct {
	At time.Time `json:"at"`
}

// RestoredAt is what the documents at Restored and at Settled hold.
func RestoredAt(now time.Time) ([]byte, error) { return json.Marshal(restoredDocument{now.UTC()}) }

// Verify tells whether documents make sense as a whole, as Open does, and what parts of them can't be read.
func Verify(ctx context.Context, documents []store.Document) (problems []string, err error) {
	_, stored, err := Open(ctx, picture{documents: documents}, 0)
	if err != nil {
		return nil, err
	}
	return stored.Problems, nil
}

// Essential returns the documents without the history: the trees and definitions that are neither present nor in use.
func Essential(ctx context.Context, documents []store.Document) ([]store.Document, error) {
	s, stored, err := Open(ctx, picture{documents: documents}, 0)
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{trees + stamp(s.present): true}
	for a := range stored.Root.Specs() {
		needed[appKey(a.ID, a.Version)] = true
	}
	for u, n := range s.uses {
		needed[appKey(u.app, u.version)] = n > 0
	}
	for _, id := range stored.Quarantined { // nobody knows which
		for _, v := range s.versions[id] {
			needed[appKey(id, v)] = true
		}
	}
	var out []store.Document
	for _, d := range documents {
		history := strings.HasPrefix(d.Key, trees) || strings.HasPrefix(d.Key, apps)
		if !history || needed[d.Key] {
			out = append(out, d)
		}
	}
	return out, nil
}

// FrameworkIn returns the framework id in documents, empty where there is none.
func FrameworkIn(documents []store.Document) string {
	for _, d := range documents {
		if d.Key == framework {
			return frameworkOf(d)
		}
	}
	return ""
}

// FrameworkID returns the framework id that is stored, empty where there is none.
func FrameworkID(ctx context.Context, s store.Store) (string, error) {
	d, err := s.Get(ctx, framework)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return frameworkOf(d), nil
}

func frameworkOf(d store.Document) string {
	var f frameworkDocument
	if json.Unmarshal(d.Data, &f) != nil {
		return ""
	}
	return f.ID
}

// picture is a store that can be listed, and nothing else.
type picture struct {
	store.Store
	documents []store.Document
}

func (p picture) List(_ context.Context, prefix string) ([]store.Document, error) {
	var out []store.Document
	for _, d := range p.documents {
		if strings.HasPrefix(d.Key, prefix) {
			out = append(out, d)
		}
	}
	return out, nil
}
