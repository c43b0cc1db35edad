package gossip

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/keyring"
	"starling/gossip/record"
)

// keys is this node's keyring. One goroutine, keepKeys, replaces the ring; everyone else reads it.
type keys struct {
	cluster string
	state   *stateDir
	ring    atomic.Pointer[keyring.Ring]

	mu sync.Mutex // guards the order of secrets in memberlist's keyring; not held while waiting
	// memberlist holds what is derived from the secrets of the ring. It never holds more than two: then what it does to its list while others
	// read that is harmless (the last of two is removed without a write, one is added to a list that is full).
	memberlist *memberlist.Keyring

	// origin is the fingerprint of the operator's file, ancestors those of secrets that were on the ring since; both belong to keepKeys.
	origin    string
	ancestors []string

	// offers are rings that peers sent. A full queue drops: they send again.
	offers chan keyring.Ring
	// proposals are the steps of RotateKey.
	proposals chan proposal
	// changed has a token when the ring was replaced.
	changed chan struct{}
	stopped chan struct{} // closed by keepKeys when it ends

	mine     bool // the ring was proposed here; belongs to keepKeys
	laggards map[string]*laggard
}

// proposal asks for a step from the ring that it was thought out for.
type proposal struct {
	from, step keyring.Ring
	result     chan proposed // has room for the result
}

type proposed struct {
	taken bool
	err   error
}

// newKeys decides which keyring this node begins with: the one on disk if it descends from the operator's key, else that key.
func newKeys(state *stateDir, cfg *Config, log *slog.Logger) (*keys, error) {
	k := &keys{
		cluster: cfg.Cluster, state: state, origin: cfg.Key.Fingerprint(), laggards: map[string]*laggard{},
		offers: make(chan keyring.Ring, 16), proposals: make(chan proposal), changed: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	ring := keyring.Ring{Secrets: []Secret{cfg.Key}}
	kept, ancestors, err := state.loadKeyring(log)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		log.Error("kept keyring not readable, the key file is followed: where the key was rotated since, this node needs the new file", "err", err)
	case kept.Contains(cfg.Key) || slices.Contains(ancestors, k.origin):
		ring, k.ancestors = kept, ancestors
		if !bytes.Equal(kept.Primary(), cfg.Key) {
			log.Info("the key was rotated since the key file was written, the kept keyring is followed; to go back to the file, remove it",
				"file", k.origin, "serial", kept.Serial, "installed", kept.Fingerprints(), "path", filepath.Join(state.dir, keyringFile))
		}
	default:
		log.Warn("the key file holds another key than the kept keyring comes from: the file is followed, the keyring dropped",
			"file", k.origin, "installed", kept.Fingerprints())
		if err := state.dropKeyring(); err != nil {
			return nil, err
		}
	}
	if k.memberlist, err = memberlist.NewKeyring(nil, ring.Primary().MeshKey(k.cluster)); err != nil {
		return nil, err
	}
	if err := k.install(ring); err != nil {
		return nil, err
	}
	k.ring.Store(&ring)
	return k, nil
}

// current returns the ring, which is not to be modified.
func (k *keys) current() keyring.Ring { return *k.ring.Load() }

// Secrets returns the secrets of the cluster, the one to sign with first; all are to be accepted. They change when the key is rotated, so
// ask anew each time. Nil without a key. The caller must not modify them.
func (m *Mesh) Secrets() [][]byte {
	if m.keys == nil {
		return nil
	}
	ring := m.keys.current()
	secrets := make([][]byte, len(ring.Secrets))
	for i, s := range ring.Secrets {
		secrets[i] = s
	}
	return secrets
}

// install makes memberlist's keyring that of a ring which has a secret in common with it. At no time does it hold more than two, nor use
// one that is about to go.
func (k *keys) install(r keyring.Ring) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	want := make([][]byte, 0, keyring.MaxSecrets)
	for _, s := range r.Secrets {
		want = append(want, s.MeshKey(k.cluster))
	}
	wanted := func(key []byte) bool {
		return slices.ContainsFunc(want, func(w []byte) bool { return bytes.Equal(w, key) })
	}
	have := slices.Clone(k.memberlist.GetKeys())
	for _, key := range have {
		if wanted(key) {
			if err := k.memberlist.UseKey(key); err != nil {
				return err
			}
			break
		}
	}
	for _, key := range have {
		if !wanted(key) {
			if err := k.memberlist.RemoveKey(key); err != nil {
				return err
			}
		}
	}
	for _, key := range want {
		if err := k.memberlist.AddKey(key); err != nil {
			return err
		}
	}
	return k.memberlist.UseKey(want[0])
}

// under sends with another secret of the ring for the moment that it takes f, which must not wait. Whoever else is sent to in that moment
// accepts it as well, or else loses a datagram.
func (k *keys) under(s Secret, f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.memberlist.GetPrimaryKey()
	if k.memberlist.UseKey(s.MeshKey(k.cluster)) != nil {
		return // it is gone by now
	}
	f()
	_ = k.memberlist.UseKey(before) // it cannot have gone
}

// tryOtherKey is tryAll with the other secret of the ring, for a node that is alone. It may have been away while the others have taken
// the next steps: they do not accept the one that it sends with any more, or not yet.
func (m *Mesh) tryOtherKey(ctx context.Context, addrs []string) bool {
	if m.keys == nil || len(addrs) == 0 {
		return false
	}
	ring := m.keys.current()
	for _, s := range ring.Secrets[1:] {
		m.keys.mu.Lock()
		err := m.keys.memberlist.UseKey(s.MeshKey(m.keys.cluster))
		m.keys.mu.Unlock()
		if err == nil && m.tryAll(ctx, addrs) {
			m.log.Info("mesh joined with the other key of the keyring", "key", s.Fingerprint())
			return true // whoever is ahead sends the ring that goes with it
		}
	}
	if len(ring.Secrets) > 1 {
		_ = m.keys.install(m.keys.current())
	}
	return false
}

// ack is what a node says of its ring.
type ack struct {
	serial    uint64
	installed []string
}

func newAck(r keyring.Ring) ack { return ack{r.Serial, r.Fingerprints()} }

func (a ack) same(o ack) bool { return a.serial == o.serial && slices.Equal(a.installed, o.installed) }

// beats is keyring.Ring.Beats, for what is known of rings.
func (a ack) beats(o ack) bool {
	return cmp.Or(cmp.Compare(a.serial, o.serial), slices.Compare(a.installed, o.installed)) > 0
}

// acknowledged returns what a node says of its ring; ok is false where it says nothing that makes sense.
func acknowledged(s *record.Snapshot) (a ack, ok bool) {
	value, ok := s.Get(catalog.KeyKeys)
	if !ok {
		return a, false
	}
	var c catalog.Keys
	if proto.Unmarshal(value, &c) != nil || len(c.Fingerprints) == 0 || len(c.Fingerprints) > 2*keyring.MaxSecrets {
		return a, false
	}
	a.serial = c.Serial
	for _, f := range c.Fingerprints {
		a.installed = append(a.installed, hex.EncodeToString(f))
	}
	return a, true
}

// acknowledge tells all which ring this node has.
func (m *Mesh) acknowledge() {
	if m.keys == nil {
		return
	}
	a := newAck(m.keys.current())
	c := &catalog.Keys{Serial: a.serial}
	for _, f := range a.installed {
		b, err := hex.DecodeString(f)
		if err != nil {
			continue // it was encoded just now
		}
		c.Fingerprints = append(c.Fingerprints, b)
	}
	value, err := proto.Marshal(c)
	if err != nil {
		m.log.Error("keyring not acknowledged", "err", err)
		return
	}
	m.Set(record.Assignment{Key: catalog.KeyKeys, Value: value})
}

// What becomes of a ring that a peer sent.
const (
	keyringTaken   = "taken"
	keyringOld     = "old"
	keyringRefused = "refused"
	keyringNotKept = "not kept"
)

// onKeys hands a ring that a peer sent to keepKeys.
func (m *Mesh) onKeys(msg *message) {
	if m.keys == nil {
		m.metrics.refused.Inc() // sent in the clear
		return
	}
	select {
	case m.keys.offers <- keyring.Ring{Serial: msg.number, Secrets: msg.secrets}:
	default:
		m.metrics.dropped.WithLabelValues(dropInbox).Inc()
	}
}

// keepKeys owns the ring until the context ends: it takes what peers send and RotateKey proposes, and sees to it that whoever is behind gets
// the ring, whoever changed it.
func (m *Mesh) keepKeys(ctx context.Context) {
	k := m.keys
	defer close(k.stopped)
	t := time.NewTimer(jitter(spreadIdle))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-k.offers:
			m.metrics.keyrings.WithLabelValues(m.takeRing(r)).Inc()
			continue
		case p := <-k.proposals:
			var result proposed
			if newAck(k.current()).same(newAck(p.from)) {
				if result.err = k.fresh(p); result.err == nil {
					result.err = m.adopt(p.step, true)
				}
				result.taken = result.err == nil
			}
			p.result <- result
		case <-k.changed:
		case <-t.C:
		}
		t.Stop()
		if m.spread(time.Now()) {
			t.Reset(jitter(spreadBusy))
		} else {
			t.Reset(jitter(spreadIdle))
		}
	}
}

// fresh refuses a step that brings a secret back. A node that was away and holds a later one would not follow: to it, the old
// secret in its file only says where it comes from.
func (k *keys) fresh(p proposal) error {
	for _, s := range p.step.Secrets {
		if f := s.Fingerprint(); !p.from.Contains(s) && (f == k.origin || slices.Contains(k.ancestors, f)) {
			return fmt.Errorf("%w: %s; make a new one", ErrKeyUsed, f)
		}
	}
	return nil
}

// takeRing follows a ring that a peer sent, if it is to be followed.
func (m *Mesh) takeRing(r keyring.Ring) string {
	current := m.keys.current()
	if err := r.Succeeds(current); err != nil {
		m.log.Debug("keyring refused", "err", err)
		return keyringRefused
	}
	if !r.Beats(current) {
		return keyringOld
	}
	if m.adopt(r, false) != nil {
		return keyringNotKept
	}
	return keyringTaken
}

// adopt replaces the ring: first on disk, so that a restart finds no older one than others were told of, then in use, then in the record.
// What cannot be kept is not taken, and holds up the rotation.
func (m *Mesh) adopt(r keyring.Ring, mine bool) error {
	k := m.keys
	old := k.current()
	ancestors := slices.DeleteFunc(slices.Clone(k.ancestors), func(f string) bool { return f == k.origin || slices.Contains(r.Fingerprints(), f) })
	for _, f := range old.Fingerprints() {
		if f != k.origin && !slices.Contains(ancestors, f) && !slices.Contains(r.Fingerprints(), f) {
			ancestors = append(ancestors, f)
		}
	}
	ancestors = append(ancestors[max(0, len(ancestors)-maxAncestors+1):], k.origin)
	if err := k.state.saveKeyring(r, ancestors); err != nil {
		if m.logs.due("keyring") {
			m.log.Error("keyring not kept, the rotation waits for this node", "serial", r.Serial, "err", err)
		}
		return fmt.Errorf("cannot keep the keyring: %w", err)
	}
	if err := k.install(r); err != nil {
		return fmt.Errorf("cannot install the keyring: %w", err)
	}
	k.ancestors, k.mine = ancestors, mine
	clear(k.laggards) // whoever was slow with the last step is told of this one at once
	k.ring.Store(&r)
	m.acknowledge()
	m.log.Info("keyring changed", "serial", r.Serial, "installed", r.Fingerprints())
	wake(k.changed)
	wake(m.rejoin) // with this ring somebody may answer who did not before
	return nil
}

// propose has a step taken, if the ring is still the one that it was thought out for.
func (m *Mesh) propose(ctx context.Context, from, step keyring.Ring) (taken bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	p := proposal{from, step, make(chan proposed, 1)}
	select {
	case m.keys.proposals <- p:
	case <-m.keys.stopped:
		return false, ErrNotRunning
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	r := <-p.result // keepKeys answers what it has taken
	return r.taken, r.err
}
