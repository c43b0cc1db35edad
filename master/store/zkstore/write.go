package zkstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"starling/master/store"
	"starling/master/zookeeper"
)

const (
	// maxOps bounds the operations of one transaction of ZooKeeper.
	maxOps = 1000
	// partSize is how much of a large transaction goes into one node, in bytes.
	partSize = 900 << 10
	// orphanAge is for how long parts of a transaction that was never made valid may lie around: longer than writing them can
	// take.
	orphanAge = time.Hour
)

// stale tells whether a transaction failed because its writer's picture was not, or no longer, right.
func stale(err error) bool {
	return errors.Is(err, zookeeper.ErrBadVersion) || errors.Is(err, zookeeper.ErrNoNode) || errors.Is(err, zookeeper.ErrNodeExists)
}

// errUnknown is returned where it can't be found out any more whether a transaction was done.
var errUnknown = errors.New("cannot tell whether documents were written")

// attempt is one call of Write.
type attempt struct {
	id  string
	ops []store.Op
	// fresh is set when all that is remembered was read since the call began.
	fresh bool
	// doubt is the error of a try whose answer was lost, and at the version of the head that it named.
	doubt error
	at    int32
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(ops) == 0 {
		return []uint64{}, nil
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	w := &attempt{id: newID(), ops: ops}
	for try := 0; ; try++ {
		version, err := s.try(ctx, w)
		if err == nil {
			return s.written(w, version), nil
		}
		s.forget()
		w.fresh = false
		if errors.Is(err, errUnknown) {
			return nil, err
		}
		if errors.Is(err, zookeeper.ErrNoNode) {
			// Somebody took away what all documents lie in; what can't be made again now, the next try tells.
			_ = s.found(ctx)
		}
		if errors.Is(err, zookeeper.ErrUncertain) || stale(err) {
			err = fmt.Errorf("%w: %w", errMoved, err)
		}
		if !s.again(ctx, err, try) {
			if ctx.Err() != nil {
				err = fmt.Errorf("%w (%v)", context.Cause(ctx), err)
			}
			if w.doubt != nil {
				// Whatever it was in the end, the try before may have been the one.
				err = fmt.Errorf("%w: %w", errUnknown, err)
			}
			return nil, say(err)
		}
	}
}

func newID() string {
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// written remembers the outcome, and returns it as Write does.
func (s *Store) written(w *attempt, version uint64) []uint64 {
	versions := make([]uint64, len(w.ops))
	for i, op := range w.ops {
		if !op.Delete {
			versions[i] = version
		}
		s.learn(op.Key, versions[i])
	}
	return versions
}

// try does a transaction, and returns its version.
func (s *Store) try(ctx context.Context, w *attempt) (uint64, error) {
	if s.head == nil {
		if err := s.load(ctx); err != nil {
			return 0, err
		}
		w.fresh = true
		switch {
		case w.doubt == nil:
		case s.head.Last == w.id:
			return s.head.Version, nil // the answer alone was lost
		case s.at != w.at:
			return 0, fmt.Errorf("%w: %w", errUnknown, w.doubt) // somebody came behind it, or in its place
		}
	}
	if err := s.inquire(ctx, w); err != nil {
		return 0, err
	}
	for _, op := range w.ops {
		if !op.Holds(s.known[op.Key]) {
			if w.fresh {
				return 0, fmt.Errorf("%w: %q", store.ErrConflict, op.Key)
			}
			return 0, errMoved // look again
		}
	}
	next := head{Format: format, Version: s.head.Version + 1, Last: w.id}
	steps, err := s.steps(w.ops, next.Version)
	if err != nil {
		return 0, err
	}
	if steps == nil {
		if next.Pending, err = s.stage(ctx, w); err != nil {
			return 0, err
		}
	}
	data, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	versions, err := s.client.Multi(ctx, append([]zookeeper.Op{zookeeper.SetOp(nodeHead, data, s.at)}, steps...)...)
	if err != nil {
		if !stale(err) && !errors.Is(err, zookeeper.ErrNoAuth) {
			w.doubt, w.at = err, s.at
		}
		return 0, err
	}
	s.head, s.at = &next, versions[0]
	if next.Pending != nil {
		// It is valid by now: whatever keeps us from carrying it out, the next one to come does.
		if err := s.finish(ctx, w.ops); err != nil {
			s.forget()
		}
	}
	return next.Version, nil
}

// inquire makes sure that the versions of all documents of a transaction are known.
func (s *Store) inquire(ctx context.Context, w *attempt) error {
	var unknown []string
	for _, op := range w.ops {
		if _, ok := s.known[op.Key]; !ok {
			unknown = append(unknown, op.Key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	// What is read must not be older than the head, or its condition would not speak for it.
	if err := s.client.Sync(ctx); err != nil {
		return err
	}
	docs, err := s.readAll(ctx, unknown)
	if err != nil {
		return err
	}
	for _, d := range docs {
		s.learn(d.Key, d.Version)
	}
	return nil
}

// step is what one operation asks of ZooKeeper; nothing where ok is false.
func step(op store.Op, there bool, version uint64) (z zookeeper.Op, ok bool) {
	node := docNode(op.Key)
	switch {
	case op.Delete && there:
		return zookeeper.DeleteOp(node, zookeeper.Any), true
	case op.Delete:
		return z, false
	case there:
		return zookeeper.SetOp(node, encodeDoc(version, op.Data), zookeeper.Any), true
	}
	return zookeeper.CreateOp(node, encodeDoc(version, op.Data), zookeeper.Private), true
}

// steps are the operations as one transaction of ZooKeeper, nil where they don't fit into one.
func (s *Store) steps(ops []store.Op, version uint64) ([]zookeeper.Op, error) {
	if len(ops) > maxOps {
		return nil, nil
	}
	size := 4 << 10 // the head
	out := []zookeeper.Op{}
	for _, op := range ops {
		if z, ok := step(op, s.known[op.Key] != 0, version); ok {
			out = append(out, z)
			size += s.client.Size(z)
		}
	}
	if size <= zookeeper.MaxPacket {
		return out, nil
	}
	if len(ops) == 1 {
		// It would not fit when it is carried out either: a very long path takes from what the documents may have.
		return nil, fmt.Errorf("%w: %q has %d bytes, too many with the path that it lies at", store.ErrTooLarge, ops[0].Key, len(ops[0].Data))
	}
	return nil, nil
}

// stage writes a large transaction where nobody looks.
func (s *Store) stage(ctx context.Context, w *attempt) (*pending, error) {
	// Tried again, it has a place of its own: parts of the try before may be written late.
	p := &pending{ID: newID()}
	data := encodeOps(w.ops)
	for ; len(data) > 0; p.Parts++ {
		part := data[:min(len(data), partSize)]
		data = data[len(part):]
		if _, err := s.client.Create(ctx, stagedNode(p.ID, p.Parts), part, zookeeper.Persistent, zookeeper.Private); err != nil {
			return nil, err
		}
	}
	return p, s.collect(ctx, stagedNode(p.ID, 0))
}

// collect removes parts that were left behind long before newest.
func (s *Store) collect(ctx context.Context, newest string) error {
	now, _, err := s.client.Stat(ctx, newest)
	if err != nil {
		return err
	}
	names, err := s.client.Children(ctx, dirStaged)
	if err != nil {
		return err
	}
	for _, name := range names {
		node := dirStaged + "/" + name
		stat, there, err := s.client.Stat(ctx, node)
		if err != nil {
			return err
		}
		// By the servers' clock alone; nothing is pending while we write.
		if there && time.Duration(now.Ctime-stat.Ctime)*time.Millisecond > orphanAge {
			if err := s.client.Delete(ctx, node, zookeeper.Any); err != nil && !errors.Is(err, zookeeper.ErrNoNode) {
				return err
			}
		}
	}
	return nil
}

// finish carries out the pending transaction; the operations are read where they are nil. It returns errMoved when somebody
// else has finished it. Doing all or a part of it again changes nothing.
func (s *Store) finish(ctx context.Context, ops []store.Op) error {
	p := s.head.Pending
	if ops == nil {
		var err error
		if ops, err = s.staged(ctx, p); err != nil {
			return err
		}
	}
	for rest := ops; len(rest) > 0; {
		n, err := s.apply(ctx, rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	done := *s.head
	done.Pending = nil
	data, err := json.Marshal(done)
	if err != nil {
		return err
	}
	versions, err := s.client.Multi(ctx, zookeeper.SetOp(nodeHead, data, s.at))
	if stale(err) {
		return errMoved
	}
	if err != nil {
		return err
	}
	s.head, s.at = &done, versions[0]
	for part := range p.Parts {
		if err := s.client.Delete(ctx, stagedNode(p.ID, part), zookeeper.Any); err != nil {
			break // collect comes by
		}
	}
	return nil
}

// staged reads a pending transaction.
func (s *Store) staged(ctx context.Context, p *pending) ([]store.Op, error) {
	var data []byte
	for part := range p.Parts {
		b, _, err := s.client.Get(ctx, stagedNode(p.ID, part))
		if errors.Is(err, zookeeper.ErrNoNode) {
			if h, _, err := s.readHead(ctx); err != nil || h.Pending == nil || h.Pending.ID != p.ID {
				return nil, errors.Join(errMoved, err)
			}
			return nil, fmt.Errorf("part %d of transaction %s is gone: the documents are half written", part, p.ID)
		}
		if err != nil {
			return nil, err
		}
		data = append(data, b...)
	}
	ops, err := decodeOps(data)
	if err != nil {
		return nil, fmt.Errorf("transaction %s is damaged: %w", p.ID, err)
	}
	return ops, nil
}

// apply carries out as many of the operations as fit into a packet, and returns how many. It does so on condition that the
// transaction is still pending: one who comes late must not write over what came behind it.
func (s *Store) apply(ctx context.Context, ops []store.Op) (int, error) {
	batch := []zookeeper.Op{zookeeper.CheckOp(nodeHead, s.at)}
	size, n := s.client.Size(batch[0]), 0
	there, err := s.exist(ctx, ops[:min(len(ops), maxOps)])
	if err != nil {
		return 0, err
	}
	for i, is := range there {
		z, ok := step(ops[i], is, s.head.Version)
		if ok {
			if size += s.client.Size(z); size > zookeeper.MaxPacket {
				break
			}
			batch = append(batch, z)
		}
		n++
	}
	_, err = s.client.Multi(ctx, batch...)
	if stale(err) {
		return 0, errMoved
	}
	return n, err
}

// exist tells which of the documents are there.
func (s *Store) exist(ctx context.Context, ops []store.Op) ([]bool, error) {
	there := make([]bool, len(ops))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, op := range ops {
		group.Go(func() (err error) {
			_, there[i], err = s.client.Stat(ctx, docNode(op.Key))
			return err
		})
	}
	return there, group.Wait()
}
