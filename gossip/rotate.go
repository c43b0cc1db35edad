package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/gossip/keyring"
	"starling/gossip/record"
)

// Errors of RotateKey and StartRotation that callers may test for, beside keyring.ErrUnfinished and keyring.ErrRequest.
var (
	// ErrNoKey is for a mesh that was started without a key: there is nothing to replace.
	ErrNoKey = errors.New("the mesh has no key")
	// ErrRotating is for a node that conducts a rotation already.
	ErrRotating = errors.New("this node conducts a rotation already")
	// ErrSuperseded is wrapped when the cluster followed another rotation that was begun at the same time.
	ErrSuperseded = errors.New("another rotation won")
	// ErrKeyUsed is wrapped when the secret was in force before.
	ErrKeyUsed = errors.New("this key was in force before")
	// ErrNotRunning is for a mesh that does not run, or no longer.
	ErrNotRunning = errors.New("the mesh does not run")
)

// HeldUpError stops a rotation before a step that would leave nodes behind. What was reached stays; running the rotation again, from
// any node, goes on from there.
type HeldUpError struct {
	// Phase is the phase that the nodes have not acknowledged.
	Phase keyring.Phase
	// Nodes are the names of the nodes that have not.
	Nodes []string
	// Silent is set where they are members that say nothing; otherwise they are dead, or were never seen alive.
	Silent bool
}

// Error names the nodes.
func (e *HeldUpError) Error() string {
	why := "cannot be reached"
	if e.Silent {
		why = "do not answer"
	}
	phase := "before its begin"
	if e.Phase != "" {
		phase = fmt.Sprintf("in phase %q", e.Phase)
	}
	return fmt.Sprintf("the rotation stops %s: these nodes have not acknowledged and %s: %s", phase, why, strings.Join(e.Nodes, ", "))
}

// RotateOptions say how a rotation goes.
type RotateOptions struct {
	// Abandon takes each step without the nodes that cannot be reached. One that does not know the new key by the time that the old
	// one is removed cannot join any more until its key file is replaced.
	Abandon bool
	// Patience is how long members that can be reached may take to acknowledge a step. Default 5 minutes.
	Patience time.Duration
	// Progress, if set, is called by the goroutine of RotateKey when something has changed; it must not block for long.
	Progress func(RotationProgress)
}

// RotationProgress is how far a rotation is.
type RotationProgress struct {
	Phase keyring.Phase
	// Serial is the serial of the phase's keyring.
	Serial uint64
	// Acknowledged of Nodes have taken the phase.
	Acknowledged, Nodes int
	// Waiting are the names of those that have not, in order: members first, then those that cannot be reached.
	Waiting []string
}

// Rotation is what became of the last rotation that was started at this node with StartRotation.
type Rotation struct {
	// Running is set until it ends.
	Running bool
	// Target is the fingerprint of the new secret; empty where there was no rotation since the node started.
	Target  string
	Abandon bool
	RotationProgress
	Started, Ended time.Time
	// Err is why it ended before its end; nil when it is done.
	Err error
}

// NodeKeys is what a node says of its keys.
type NodeKeys struct {
	Name     string
	Liveness record.Liveness
	// Serial counts the steps of rotations that the node has taken.
	Serial uint64
	// Primary is the fingerprint of the secret that the node sends with; empty where the node says nothing.
	Primary string
	// Installed are the fingerprints of all secrets that it accepts, Primary first.
	Installed []string
}

// Keys returns what is known of the keys of all nodes of which something is held, this one included, in order of names.
func (m *Mesh) Keys() []NodeKeys {
	var all []NodeKeys
	for s := range m.records.Snapshots() {
		k := NodeKeys{Name: s.Node(), Liveness: s.Liveness()}
		if a, ok := acknowledged(s); ok {
			k.Serial, k.Installed = a.serial, a.installed
			k.Primary = k.Installed[0]
		}
		all = append(all, k)
	}
	return all
}

// RotateKey replaces the secret of the cluster, from this node, and returns when every node has taken the last step. It goes in three
// phases, each of which begins when every node known here has acknowledged the one before: all install the new secret, all use it, all remove
// the old one. Running it again with the same secret, here or elsewhere, finishes a rotation that was interrupted; running it with
// the old secret takes one back that is not finished.
//
// Nodes that can be reached are waited for; those that cannot stop the rotation with a *HeldUpError, unless they have
// acknowledged what the next step needs or are to be abandoned. Nodes that left are waited for during two minutes, which is time for
// a restart. A step waits for two seconds (six with profile wan) in which nobody new appears. Other errors: ErrNoKey, ErrNotRunning, ErrRotating, ErrSuperseded, keyring.ErrUnfinished, keyring.ErrRing, and that
// of the context.
func (m *Mesh) RotateKey(ctx context.Context, next Secret, o RotateOptions) error {
	switch {
	case m.keys == nil:
		return ErrNoKey
	case m.ml.Load() == nil:
		return ErrNotRunning
	}
	if err := (keyring.Ring{Secrets: []Secret{next}}).Validate(); err != nil {
		return fmt.Errorf("cannot rotate to this key: %w", err)
	}
	if !m.rotating.TryLock() {
		return ErrRotating
	}
	defer m.rotating.Unlock()
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	c := &conductor{m: m, next: next, o: o, since: time.Now()}
	tick := time.NewTicker(conductEvery)
	defer tick.Stop()
	for {
		if done, err := c.conduct(ctx); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.keys.stopped:
			return ErrNotRunning
		case <-tick.C:
		}
	}
}

const (
	defaultPatience = 5 * time.Minute
	conductEvery    = 100 * time.Millisecond
	// A node that left may be back with what it knew: this long, no step is taken that it could not follow.
	leftGrace = 2 * time.Minute
	// A node that was only heard of may be about to join.
	unknownGrace = 30 * time.Second
)

// settle is how long all have to be ready for a step before it is taken: time enough to hear of a node that joined elsewhere with the old
// secret, and that the step would leave behind.
func (m *Mesh) settle() time.Duration { return 2 * m.profile.sync }

// conductor is one run of RotateKey.
type conductor struct {
	m     *Mesh
	next  Secret
	o     RotateOptions
	begun bool
	since time.Time // when the last step was taken
	// serial is that of the ring last seen, ready since when all that is known speaks for the step after it; zero while it does not.
	serial uint64
	ready  time.Time
	told   RotationProgress
}

// conduct takes the next step if all are ready for it. It tells whether all steps are taken.
func (c *conductor) conduct(ctx context.Context) (done bool, err error) {
	ring := c.m.keys.current()
	step, ok, err := ring.Toward(c.next)
	switch {
	case errors.Is(err, keyring.ErrUnfinished) && c.begun:
		return false, fmt.Errorf("%w: the keyring holds %v", ErrSuperseded, ring.Fingerprints())
	case err != nil:
		return false, err
	}
	phase := ring.Phase(c.next)
	s := c.m.standing(ring)
	if phase != "" {
		c.tell(RotationProgress{
			Phase: phase, Serial: ring.Serial, Acknowledged: s.ready, Nodes: s.ready + len(s.waiting) + len(s.gone),
			Waiting: slices.Concat(s.waiting, s.gone),
		})
	}
	// Installing one more secret leaves nobody behind, and when the last one is removed everybody can follow: nodes that cannot be
	// reached, or that are just joining somewhere else, matter in between.
	needed := ok && phase != ""
	switch {
	case len(s.waiting) > 0 || ring.Serial != c.serial:
		c.serial, c.ready = ring.Serial, time.Time{}
	case c.ready.IsZero():
		c.ready = time.Now()
	}
	switch {
	case len(s.waiting) > 0 && time.Since(c.since) > c.o.Patience:
		return false, &HeldUpError{Phase: phase, Nodes: s.waiting, Silent: true}
	case len(s.waiting) > 0:
		return false, nil
	case len(s.gone) > 0 && needed && !c.o.Abandon:
		return false, &HeldUpError{Phase: phase, Nodes: s.gone}
	case len(s.left) > 0 && needed && !c.o.Abandon, needed && (c.ready.IsZero() || time.Since(c.ready) < c.m.settle()):
		return false, nil
	case !ok:
		return true, nil
	}
	taken, err := c.m.propose(ctx, ring, step)
	if taken {
		c.begun, c.since = true, time.Now()
	}
	return false, err
}

func (c *conductor) tell(p RotationProgress) {
	if c.o.Progress == nil || p.Phase == c.told.Phase && p.Serial == c.told.Serial && slices.Equal(p.Waiting, c.told.Waiting) && p.Nodes == c.told.Nodes {
		return
	}
	c.told = p
	c.o.Progress(p)
}

// standing is how the nodes stand to a ring.
type standing struct {
	ready int
	// waiting are members that have not acknowledged the ring, gone those that cannot be reached and left those that have just left.
	waiting, gone, left []string
}

func (m *Mesh) standing(r keyring.Ring) standing {
	var s standing
	now := time.Now()
	own := newAck(r)
	for snap := range m.records.Snapshots() {
		l, age := snap.Liveness(), now.Sub(snap.Since())
		a, _ := acknowledged(snap)
		switch {
		case a.same(own):
			if l != record.Left {
				s.ready++
			}
		case l == record.Left:
			if age < leftGrace {
				s.left = append(s.left, snap.Node())
			}
		case l == record.Dead || l == record.Unknown && age > unknownGrace:
			s.gone = append(s.gone, snap.Node())
		default:
			s.waiting = append(s.waiting, snap.Node())
		}
	}
	// Of peers of the last run nothing is known that have not been met since. Alone, or with others that have just started, a node would
	// else take itself for the whole cluster.
	for _, name := range m.peers.missing(now, m.cfg.ReapAfter) {
		switch {
		case m.records.Snapshot(name) != nil:
		case now.Sub(m.started) < unknownGrace:
			s.waiting = append(s.waiting, name)
		default:
			s.gone = append(s.gone, name)
		}
	}
	return s
}

// rotation is what StartRotation leaves for Run, and what it has done.
type rotation struct {
	start chan keyring.Request // one place: a second request is refused

	mu     sync.Mutex
	state  Rotation // guarded by mu
	closed bool     // nobody waits for start any more; guarded by mu
}

// StartRotation opens a sealed request (keyring.Seal, with a challenge that RotationChallenge gave) and starts the rotation that it asks for, as
// RotateKey would, in the background: it ends with Run at the latest. Rotation tells how it goes. A request is taken once, within two minutes
// of its challenge. Errors: those of RotateKey, and keyring.ErrRequest.
//
// A request that is sealed with the old secret when this node has removed that is refused: seal it with the new one then.
func (m *Mesh) StartRotation(sealed []byte) error {
	if m.keys == nil {
		return ErrNoKey
	}
	challenge, err := keyring.Challenge(sealed)
	if err != nil {
		return err
	}
	q, err := m.keys.current().Open(m.cfg.Cluster, sealed)
	if err != nil {
		return err
	}
	if err := m.challenges.take(challenge); err != nil {
		return err
	}
	if _, _, err := m.keys.current().Toward(q.Next); err != nil {
		return err
	}
	r := &m.rotation
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case m.ml.Load() == nil || r.closed:
		return ErrNotRunning
	case r.state.Running:
		return ErrRotating
	}
	select {
	case r.start <- q:
	default:
		return ErrRotating
	}
	r.state = Rotation{Running: true, Target: q.Next.Fingerprint(), Abandon: q.Abandon, Started: time.Now()}
	return nil
}

// Rotation returns what became of the last rotation that StartRotation began at this node. The caller owns the result.
func (m *Mesh) Rotation() Rotation {
	m.rotation.mu.Lock()
	defer m.rotation.mu.Unlock()
	state := m.rotation.state
	state.Waiting = slices.Clone(state.Waiting)
	return state
}

// RotationChallenge returns what a request for StartRotation has to answer, good for two minutes and one request. Anyone may see it.
func (m *Mesh) RotationChallenge() []byte { return m.challenges.issue() }

// rotate conducts the rotations that were started from outside, one after the other.
func (m *Mesh) rotate(ctx context.Context) {
	r := &m.rotation
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock()
			defer r.mu.Unlock()
			r.closed = true
			if r.state.Running { // it was started a moment ago
				r.state.Running, r.state.Ended, r.state.Err = false, time.Now(), ErrNotRunning
			}
			return
		case q := <-r.start:
			target := q.Next.Fingerprint()
			m.log.Info("rotation of the cluster key started", "key", target, "abandon", q.Abandon)
			err := m.RotateKey(ctx, q.Next, RotateOptions{Abandon: q.Abandon, Progress: func(p RotationProgress) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.state.RotationProgress = p
			}})
			switch {
			case err == nil:
				m.log.Info("rotation of the cluster key done", "key", target)
			case ctx.Err() != nil:
				err = ErrNotRunning
				fallthrough
			default:
				m.log.Warn("rotation of the cluster key stopped", "key", target, "err", err)
			}
			r.mu.Lock()
			r.state.Running, r.state.Ended, r.state.Err = false, time.Now(), err
			r.mu.Unlock()
		}
	}
}
