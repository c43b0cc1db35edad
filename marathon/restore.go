package marathon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"starling/marathon/state"
	"starling/master/store"
)

// restore returns the writes that make the state what it was in a backup, and none where that is not whole, makes no sense, or
// is of another framework. The deployments of that day are left out: what they were about is long done, or not wanted any
// more. What is there now is kept in a backup of its own first.
func (m *Marathon) restore(ctx context.Context, s store.Store, h Handover, c *Carried) ([]store.Op, error) {
	docs, err := m.openBackup(ctx, h.Restore)
	if err != nil {
		return nil, err
	}
	present, err := s.List(ctx, state.Prefix)
	damaged := errors.Is(err, store.ErrDamaged)
	if err != nil && !damaged {
		return nil, fmt.Errorf("%w: %w", errStoreReads, err)
	}
	before, after := cmp.Or(state.FrameworkIn(present), m.memory.recall()), state.FrameworkIn(docs)
	if before != "" && before != after && !h.AnotherFramework {
		return nil, fmt.Errorf("the backup is of the framework %q, and this is %s, whose tasks would be strangers: say anotherFramework=true if that is what you want", after, before)
	}
	if err := m.keepReplaced(ctx, present, damaged, c); err != nil {
		return nil, err
	}
	docs = slices.DeleteFunc(docs, func(d store.Document) bool {
		id, ok := strings.CutPrefix(d.Key, state.Deployments)
		if ok {
			c.Dropped = append(c.Dropped, id)
		}
		return ok
	})
	mark, err := state.RestoredAt(m.cfg.Now())
	if err != nil {
		return nil, err
	}
	ops := []store.Op{{Key: state.Restored, Version: store.Any, Data: mark}}
	kept := map[string]bool{state.Restored: true}
	for _, d := range docs {
		if !kept[d.Key] {
			ops = append(ops, store.Op{Key: d.Key, Version: store.Any, Data: d.Data})
			kept[d.Key] = true
		}
	}
	for _, d := range present {
		if !kept[d.Key] {
			ops = append(ops, store.Op{Key: d.Key, Version: store.Any, Delete: true})
		}
	}
	c.Documents = len(docs)
	return ops, store.CheckOps(ops)
}

// openBackup reads a backup and checks it.
func (m *Marathon) openBackup(ctx context.Context, uri string) ([]store.Document, error) {
	name, err := fileOf(m.cfg.Backups, uri)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(m.cfg.Backups)
	if err != nil {
		return nil, fmt.Errorf("cannot read the backup: %w", err)
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the backup: %w", err)
	}
	defer f.Close()
	docs, known, err := readBackup(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read the backup %s: %w", name, err)
	}
	problems, err := state.Verify(ctx, docs)
	for _, p := range problems {
		if !slices.Contains(known, p) {
			err = errors.Join(err, errors.New(p))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the backup %s makes no sense: %w", name, err)
	}
	return docs, nil
}

// keepReplaced makes a backup of what a restore replaces. What is damaged can't be kept, and must not be in the way.
func (m *Marathon) keepReplaced(ctx context.Context, present []store.Document, damaged bool, c *Carried) error {
	if len(present) == 0 {
		return nil
	}
	readable := slices.DeleteFunc(slices.Clone(present), func(d store.Document) bool { return d.Damage != nil })
	problems, err := state.Verify(ctx, readable)
	if err != nil {
		m.log.Warn("what the restore replaces makes no sense by itself, and is kept as it is", "err", err)
	}
	if damaged {
		m.log.Warn("what the restore replaces can't be read wholly; the rest of it is kept", "documents", len(readable))
	}
	name := "replaced-" + m.cfg.Now().UTC().Format("20060102T150405.000Z") + ".tar"
	if err := writeBackup(m.cfg.Backups, name, m.cfg.Now(), readable, problems); err != nil {
		return fmt.Errorf("what is there now can't be kept, so nothing is restored: %w", err)
	}
	c.Replaced = uriOf(m.cfg.Backups, name)
	return nil
}
