package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/store"
)

// The documents of a master:
//
//	frameworks/<framework id>   a frameworkDoc: one for each framework, and for those removed last
//	ids/<master id>             an idsDoc: the next framework id that begins with this master's id
//
// What operators set has documents of its own, which the files of their nouns describe.
//
// History of the format: 1, 2026-11, first version.
const (
	docFormat     = 1
	prefixFramers = "frameworks/"
	prefixIDs     = "ids/"
)

// frameworkDoc is what is kept of a framework. Times are Unix nanoseconds; 0 is never.
type frameworkDoc struct {
	Format int `json:"format"`
	// Info is a mesos.v1.FrameworkInfo with its id.
	Info []byte `json:"info"`
	// Suppressed are the roles that the last subscription or SUPPRESS silenced.
	Suppressed   []string `json:"suppressed,omitempty"`
	Registered   int64    `json:"registered"`
	Reregistered int64    `json:"reregistered,omitempty"`
	// Disconnected is when the stream was lost; 0 while it is open.
	Disconnected int64 `json:"disconnected,omitempty"`
	// Removed is when the framework was torn down or ran out of time; its id is never taken again.
	Removed int64 `json:"removed,omitempty"`

	info *mesos.FrameworkInfo
}

type idsDoc struct {
	Format int    `json:"format"`
	Next   uint64 `json:"next"`
}

// keeper writes the documents of one term, one after the other, and repeats what fails. Every write names the version
// that it replaces, so that an old leader cannot overwrite what a new one wrote.
type keeper struct {
	store store.Store
	log   *slog.Logger
	// fail ends the term: another leader writes.
	fail func(error)
	// wake holds a token while queue is not empty.
	wake chan struct{}

	mu    sync.Mutex
	queue []write

	// stored is called with how long each write took; size is how many bytes all documents have.
	stored func(time.Duration)
	size   atomic.Int64

	// versions and sizes belong to load, and then to run.
	versions map[string]uint64
	sizes    map[string]int
}

// learn notes the version and the size in bytes that a document has now.
func (k *keeper) learn(key string, version uint64, size int) {
	k.versions[key] = version
	k.size.Add(int64(size - k.sizes[key]))
	k.sizes[key] = size
}

// measure returns how many writes wait, and how many bytes the documents have.
func (k *keeper) measure() (queued int, size int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.queue), k.size.Load()
}

// write is one or more documents that are written together; nil data deletes. done, if any, is called once it is safe.
type write struct {
	docs []keptDoc
	done func()
}

type keptDoc struct {
	key  string
	data []byte
}

func newKeeper(s store.Store, log *slog.Logger, stored func(time.Duration), fail func(error)) *keeper {
	return &keeper{
		store: s, log: log, stored: stored, fail: fail, wake: make(chan struct{}, 1), versions: make(map[string]uint64),
		sizes: make(map[string]int),
	}
}

// documents is what a term begins with.
type documents struct {
	frameworks []*frameworkDoc
	// nextID is the number of the next framework.
	nextID uint64
	took   time.Duration // to read them
	// others holds the documents that operators caused, by key.
	others map[string][]byte
}

// prefixesOfOthers are where the documents lie that operators cause.
var prefixesOfOthers = []string{docWeights, docQuota, prefixMaintenance, prefixAgents, prefixGone}

// idsPerTerm is by how much the first framework of a master that has no document of ids is numbered higher from term to term.
// The store may have been lost: frameworks of earlier terms, which nothing else here knows of, have the low numbers.
const idsPerTerm = 10_000

// load reads all documents. One of a framework that cannot be read is left alone and told.
func (k *keeper) load(ctx context.Context, masterID string, epoch uint64) (*documents, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out := &documents{nextID: (max(epoch, 1) - 1) * idsPerTerm, others: make(map[string][]byte)}
	ids, err := k.store.Get(ctx, prefixIDs+masterID)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("cannot read %q: %w", prefixIDs+masterID, err)
	default:
		var doc idsDoc
		if err := json.Unmarshal(ids.Data, &doc); err != nil {
			// Guessing here could give one id to two frameworks.
			return nil, fmt.Errorf("document %q is unreadable: %w", ids.Key, err)
		}
		out.nextID = doc.Next
		k.learn(ids.Key, ids.Version, len(ids.Data))
	}
	stored, err := k.list(ctx, prefixFramers)
	if err != nil {
		return nil, fmt.Errorf("cannot list frameworks: %w", err)
	}
	for _, d := range stored {
		if d.Damage != nil {
			continue
		}
		doc, err := decodeFramework(d.Data)
		if err != nil {
			k.log.Error("document is unreadable, framework left out", "key", d.Key, "err", err)
			continue
		}
		out.frameworks = append(out.frameworks, doc)
	}
	for _, prefix := range prefixesOfOthers {
		stored, err := k.list(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("cannot list %q: %w", prefix, err)
		}
		for _, d := range stored {
			out.others[d.Key] = d.Data
		}
	}
	return out, nil
}

// list lists documents and learns their versions. One that is damaged keeps no master from leading: it has no data, which reads as
// no document does, so that it is left alone like others that cannot be read.
func (k *keeper) list(ctx context.Context, prefix string) ([]store.Document, error) {
	stored, err := k.store.List(ctx, prefix)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return nil, err
	}
	for _, d := range stored {
		k.learn(d.Key, d.Version, len(d.Data))
		if d.Damage != nil {
			k.log.Error("document is damaged, left alone", "key", d.Key, "err", d.Damage)
		}
	}
	return stored, nil
}

func decodeFramework(data []byte) (*frameworkDoc, error) {
	doc := new(frameworkDoc)
	if err := json.Unmarshal(data, doc); err != nil {
		return nil, err
	}
	if doc.Format != docFormat {
		return nil, fmt.Errorf("format %d is not known", doc.Format)
	}
	doc.info = new(mesos.FrameworkInfo)
	if err := proto.Unmarshal(doc.Info, doc.info); err != nil {
		return nil, err
	}
	if doc.info.GetId().GetValue() == "" {
		return nil, errors.New("framework has no id")
	}
	return doc, nil
}

// maxQueued is how many writes may wait for a store that does not answer. What nobody waits for replaces what it follows, and
// is bounded by the number of documents.
const maxQueued = 4096

// full tells whether too much waits already for more to be taken that somebody would wait for.
func (k *keeper) full() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.queue) >= maxQueued
}

// put queues documents. One that nobody waits for replaces the one of its key that was queued last, unless somebody waits for that.
func (k *keeper) put(done func(), docs ...keptDoc) {
	if done == nil && len(docs) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if done == nil && len(docs) == 1 {
		for i, w := range slices.Backward(k.queue) {
			if !slices.ContainsFunc(w.docs, func(d keptDoc) bool { return d.key == docs[0].key }) {
				continue
			}
			if w.done == nil && len(w.docs) == 1 {
				k.queue[i].docs = docs
				return
			}
			break // what came before that one must be written before it
		}
	}
	k.queue = append(k.queue, write{docs: docs, done: done})
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) take() (write, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		return write{}, false
	}
	w := k.queue[0]
	k.queue = k.queue[1:]
	return w, true
}

// run writes until ctx ends.
func (k *keeper) run(ctx context.Context) {
	for {
		w, ok := k.take()
		if !ok {
			select {
			case <-k.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
			err := k.write(ctx, w)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, store.ErrConflict) {
				k.fail(err)
				return
			}
			if errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrInvalid) {
				// Whoever wrote it should have looked; it is never told as safe. What comes behind it must not wait for ever.
				k.log.Error("document cannot be kept", "key", w.docs[0].key, "err", err)
				w.done = nil
				break
			}
			k.log.Warn("cannot write document, trying again", "key", w.docs[0].key, "err", err, "dur", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
		if w.done != nil {
			w.done()
		}
	}
}

func (k *keeper) write(ctx context.Context, w write) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ops := make([]store.Op, len(w.docs))
	for i, d := range w.docs {
		ops[i] = store.Op{Key: d.key, Version: k.versions[d.key], Data: d.data, Delete: d.data == nil}
	}
	begun := time.Now()
	versions, err := k.store.Write(ctx, ops...)
	if errors.Is(err, store.ErrConflict) && k.written(ctx, w) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, d := range w.docs {
		k.learn(d.key, versions[i], len(d.data))
	}
	k.stored(time.Since(begun))
	return nil
}

// written tells whether a write that met a conflict has in truth been done by an attempt whose answer was lost. If so,
// it learns the versions.
func (k *keeper) written(ctx context.Context, w write) bool {
	found := make(map[string]uint64)
	for _, d := range w.docs {
		stored, err := k.store.Get(ctx, d.key)
		switch {
		case errors.Is(err, store.ErrNotFound) && d.data == nil:
			found[d.key] = 0
		case err != nil || string(stored.Data) != string(d.data):
			return false
		default:
			found[d.key] = stored.Version
		}
	}
	for _, d := range w.docs {
		k.learn(d.key, found[d.key], len(d.data))
	}
	return true
}

// keep queues the document of a framework. With done, the next framework id is written along, in one transaction.
func (m *Master) keep(f *framework, done func()) {
	doc, err := f.encode()
	if err != nil {
		m.log.Error("cannot encode framework", "framework_id", f.id, "err", err)
		return
	}
	docs := []keptDoc{doc}
	if done != nil {
		ids, err := json.Marshal(idsDoc{Format: docFormat, Next: m.term.idSeq})
		if err != nil {
			m.log.Error("cannot encode ids", "err", err)
			return
		}
		docs = append(docs, keptDoc{key: prefixIDs + m.cfg.ID, data: ids})
	}
	m.term.keeper.put(done, docs...)
}

// encode writes the document of a framework.
func (f *framework) encode() (keptDoc, error) {
	info, err := proto.Marshal(f.info)
	if err != nil {
		return keptDoc{}, fmt.Errorf("cannot encode description: %w", err)
	}
	return encodeDoc(prefixFramers+f.id, frameworkDoc{
		Format: docFormat, Info: info, Suppressed: f.suppressedRoles(),
		Registered: unixNano(f.registered), Reregistered: unixNano(f.reregistered),
		Disconnected: unixNano(f.disconnected), Removed: unixNano(f.unregistered),
	})
}

// encodeDoc writes a document as JSON. One that is too large to be kept is refused, with the text for the caller.
func encodeDoc(key string, doc any) (keptDoc, error) {
	data, err := json.Marshal(doc)
	if err != nil {
		return keptDoc{}, fmt.Errorf("cannot encode document %q: %w", key, err)
	}
	if len(data) > store.MaxSize {
		return keptDoc{}, refuse(Invalid, "%d bytes are more than the %d that can be kept", len(data), store.MaxSize)
	}
	return keptDoc{key: key, data: data}, nil
}

// commit has change look at the state, change it and name the documents that follow from that, and returns once these are
// safe: what was answered with success survives this master. change runs on the loop of a master that leads; an error of
// its stands for a state that it left as it was. The change is seen by others before it is safe; a master that cannot
// write it loses its term, and the next begins with the documents.
func (m *Master) commit(ctx context.Context, change func() ([]keptDoc, error)) error {
	return m.commitThen(ctx, func() ([]keptDoc, func(), error) {
		docs, err := change()
		return docs, nil, err
	})
}

// commitThen is commit for what must not have effects before it is safe: change also returns what to do then, on the loop and
// under the same term. Where nobody waits for it any more it is done all the same.
func (m *Master) commitThen(ctx context.Context, change func() (docs []keptDoc, then func(), err error)) error {
	safe := make(chan struct{})
	var ended <-chan struct{}
	var err error
	if e := m.do(ctx, func() {
		if m.term == nil {
			err = m.notLeading()
			return
		}
		if m.term.keeper.full() {
			err = ErrBusy
			return
		}
		docs, then, e := change()
		if err = e; err != nil {
			return
		}
		if len(docs) == 0 {
			if then != nil {
				then()
			}
			close(safe)
			return
		}
		ended = m.term.ctx.Done()
		if then == nil {
			m.term.keeper.put(func() { close(safe) }, docs...)
			return
		}
		m.keepThen(docs, func() { then(); close(safe) })
	}); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	select {
	case <-safe:
		return nil
	case <-ended:
		return ErrNotLeading
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepThen queues documents, and has the loop do something once they are safe, unless the term has ended by then.
func (m *Master) keepThen(docs []keptDoc, then func()) {
	t := m.term
	t.keeper.put(func() {
		m.post(func() {
			if m.term == t {
				then()
			}
		})
	}, docs...)
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeFromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
