package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/scheduler"
	"starling/master/store"
)

// planDocument is a deployment without definitions: those are in documents of their own.
type planDocument struct {
	Plan    *deployment.Plan `json:"plan"`
	Changes []planChange     `json:"changes"`
}

// planChange names the versions before and after; 0 is none.
type planChange struct {
	ID  app.PathID    `json:"id"`
	Old app.Timestamp `json:"old,omitzero"`
	New app.Timestamp `json:"new,omitzero"`
}

func planOf(p *deployment.Plan) planDocument {
	light := *p
	light.Changes = nil
	d := planDocument{Plan: &light, Changes: make([]planChange, len(p.Changes))}
	for i, c := range p.Changes {
		d.Changes[i].ID = c.ID
		if c.Old != nil {
			d.Changes[i].Old = c.Old.Version
		}
		if c.New != nil {
			d.Changes[i].New = c.New.Version
		}
	}
	return d
}

// TooLarge refuses something that does not fit into one document, or not into one transaction.
type TooLarge struct {
	// What names it: "app /shop/web", "the list of all apps and groups", "the deployment", "the change as a whole".
	What string
	// Size is what it would take and Limit what there is, in bytes.
	Size, Limit int
}

func (t *TooLarge) Error() string {
	return fmt.Sprintf("%s is too large to be stored: %d bytes, and the limit is %d", t.What, t.Size, t.Limit)
}

// MaxChange is how large all documents of one change of definitions may be together, in bytes: half of a transaction, since
// other writes go with it.
const MaxChange = store.MaxTransaction / 2

// Check tells whether a change of definitions could be stored, as far as sizes go, and how many bytes it takes. The error
// is a *TooLarge.
func (s *State) Check(root *app.Group, plan *deployment.Plan) (int, error) {
	total := 0
	fits := func(what string, v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("cannot encode %s: %w", what, err)
		}
		if len(data) > store.MaxSize {
			return &TooLarge{What: what, Size: len(data), Limit: store.MaxSize}
		}
		total += len(data) + store.MaxKey
		return nil
	}
	for _, c := range plan.Changes {
		if c.New == nil {
			continue
		}
		if err := fits("app "+string(c.ID), c.New); err != nil {
			return 0, err
		}
	}
	if err := fits("the list of all apps and groups", treeOf(root)); err != nil {
		return 0, err
	}
	if err := fits("the deployment", planOf(plan)); err != nil {
		return 0, err
	}
	if total > MaxChange {
		return 0, &TooLarge{What: "the change as a whole", Size: total, Limit: MaxChange}
	}
	return total, nil
}

// CheckCallbacks tells whether a list of URLs could be stored. The error is a *TooLarge.
func CheckCallbacks(urls []string) error {
	data, err := json.Marshal(callbacksDocument{URLs: urls})
	if err != nil {
		return fmt.Errorf("cannot encode the callbacks: %w", err)
	}
	if len(data) > store.MaxSize {
		return &TooLarge{What: "the list of all callbacks", Size: len(data), Limit: store.MaxSize}
	}
	return nil
}

// transaction collects writes; of several to one key the last counts.
type transaction struct {
	ops   []store.Op
	index map[string]int
}

func (t *transaction) add(op store.Op) {
	op.Version = store.Any
	if i, ok := t.index[op.Key]; ok {
		t.ops[i] = op
		return
	}
	t.index[op.Key] = len(t.ops)
	t.ops = append(t.ops, op)
}

func (t *transaction) put(key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode %q: %w", key, err)
	}
	if len(data) > store.MaxSize {
		return &TooLarge{What: key, Size: len(data), Limit: store.MaxSize}
	}
	t.add(store.Op{Key: key, Data: data})
	return nil
}

func (t *transaction) delete(key string) { t.add(store.Op{Key: key, Delete: true}) }

// Transaction is a set of writes that are done together or not at all.
type Transaction struct {
	ops     []store.Op
	dropped int
	scan    time.Duration
}

// Collected tells how many old versions go with the transaction, and how long it took to find them.
func (t *Transaction) Collected() (dropped int, scan time.Duration) { return t.dropped, t.scan }

// Prepare makes a transaction of writes. Transactions have to be committed in the order in which they were prepared. The
// error is an ErrUnfit: what is to be stored can't be, ever; nothing may be prepared after that.
func (s *State) Prepare(writes []scheduler.Write) (*Transaction, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &transaction{index: make(map[string]int)}
	s.touched = make(map[app.PathID]struct{})
	for _, w := range writes {
		if err := s.apply(t, w); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnfit, err)
		}
	}
	before, begun := len(t.ops), time.Now()
	s.collect(t)
	return &Transaction{ops: t.ops, dropped: len(t.ops) - before, scan: time.Since(begun)}, nil
}

// Commit carries out a transaction. An ErrUnfit tells that the store has refused it, nothing of it is stored, and it would
// refuse it again; nothing may be prepared after that. After any other error it may or may not be stored, and has to be
// committed again before the next.
func (s *State) Commit(ctx context.Context, t *Transaction) error {
	_, err := s.store.Write(ctx, t.ops...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrInvalid), errors.Is(err, store.ErrConflict),
		errors.Is(err, store.ErrClosed):
		return fmt.Errorf("%w: %d documents: %w", ErrUnfit, len(t.ops), err)
	default:
		return fmt.Errorf("cannot store %d documents: %w", len(t.ops), err)
	}
}

// apply adds one write to the transaction, and to what is known of the stored documents.
func (s *State) apply(t *transaction, w scheduler.Write) error {
	switch w.Kind {
	case scheduler.KindFramework:
		return t.put(framework, frameworkDocument{ID: w.Key, Mark: w.Mark})
	case scheduler.KindCallbacks:
		return t.put(callbacks, callbacksDocument{URLs: w.Callbacks})
	case scheduler.KindInstance:
		if w.Instance == nil {
			s.use(w.Key, used{})
			t.delete(instances + w.Key)
			return nil
		}
		s.use(w.Key, used{w.Instance.ID.App, w.Instance.Version})
		return t.put(instances+w.Key, w.Instance)
	case scheduler.KindDeployment:
		if w.Deployment == nil {
			s.usePlan(w.Key, planDocument{})
			t.delete(plans + w.Key)
			return nil
		}
		document := planOf(w.Deployment.Plan)
		s.usePlan(w.Key, document)
		return t.put(plans+w.Key, document)
	case scheduler.KindFailure:
		key := failures + app.PathID(w.Key).Safe()
		if w.Failure == nil {
			t.delete(key)
			return nil
		}
		return t.put(key, w.Failure)
	case scheduler.KindHistory:
		if w.Ended == nil {
			t.delete(history + w.Key)
			return nil
		}
		return t.put(history+w.Key, w.Ended)
	case scheduler.KindApp:
		id := app.PathID(w.Key)
		for _, v := range s.versions[id] {
			t.delete(appKey(id, v))
		}
		delete(s.versions, id)
		return nil
	case scheduler.KindDiscard:
		if w.Discard == nil {
			t.delete(discards + w.Key)
			return nil
		}
		return t.put(discards+w.Key, w.Discard)
	case scheduler.KindTree:
		return s.applyTree(t, w.Tree)
	default:
		return fmt.Errorf("cannot store a document of kind %d", w.Kind)
	}
}

func (s *State) applyTree(t *transaction, tree *scheduler.Tree) error {
	for _, a := range tree.Changed {
		s.touched[a.ID] = struct{}{}
		if err := t.put(appKey(a.ID, a.Version), a); err != nil {
			return err
		}
		if versions := s.versions[a.ID]; !slices.Contains(versions, a.Version) {
			versions = append(slices.Clone(versions), a.Version)
			slices.Sort(versions)
			s.versions[a.ID] = versions
		}
	}
	v := tree.Root.Version
	if err := t.put(trees+stamp(v), treeOf(tree.Root)); err != nil {
		return err
	}
	if !slices.Contains(s.trees, v) {
		s.trees = append(slices.Clone(s.trees), v)
		slices.Sort(s.trees)
	}
	s.present = v
	return t.put(current, currentDocument{Format: format, Version: v})
}

// collect drops trees and versions beyond what is kept, those in use excepted.
func (s *State) collect(t *transaction) {
	for len(s.trees) > s.keep && s.trees[0] != s.present {
		t.delete(trees + stamp(s.trees[0]))
		s.trees = s.trees[1:]
	}
	for id := range s.touched {
		versions := s.versions[id]
		excess := len(versions) - s.keep
		if excess <= 0 {
			continue
		}
		kept := make([]app.Timestamp, 0, len(versions))
		for i, v := range versions {
			// The newest is that of the tree.
			if excess > 0 && i < len(versions)-1 && s.uses[used{id, v}] == 0 {
				excess--
				t.delete(appKey(id, v))
				continue
			}
			kept = append(kept, v)
		}
		s.versions[id] = kept
	}
}

// use notes what version an instance was launched with; none takes the note back.
func (s *State) use(instance string, now used) {
	if before, ok := s.inUse[instance]; ok {
		s.release(before)
		delete(s.inUse, instance)
	}
	if now != (used{}) {
		s.inUse[instance] = now
		s.uses[now]++
	}
}

func (s *State) release(u used) {
	if s.uses[u]--; s.uses[u] <= 0 {
		delete(s.uses, u)
	}
}

// usePlan notes the versions that a deployment refers to; an empty document takes the note back.
func (s *State) usePlan(id string, d planDocument) {
	each := func(changes []planChange, do func(used)) {
		for _, c := range changes {
			do(used{c.ID, c.Old})
			do(used{c.ID, c.New})
		}
	}
	each(s.plans[id], s.release)
	delete(s.plans, id)
	if len(d.Changes) > 0 {
		s.plans[id] = d.Changes
		each(d.Changes, func(u used) { s.uses[u]++ })
	}
}
