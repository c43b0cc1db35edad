package gossip

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/record"
)

// freight is what is too much for datagrams: all that a peer lacks, and values that are large. It is put together when it leaves, a
// piece at a time, so that memory holds keys and versions and not copies of records; peers take turns, and a token bucket
// bounds it: neither a thousand newcomers nor the other half of a mesh that comes back drown a node. What is refused or
// given up is asked for again by the next round of anti-entropy, most likely of somebody else.
//
// What changes right now is the business of hot deltas, and as long as a peer is behind by no more than that, it is repaired out of a
// small bucket of its own: however much is going on, gossip stays within its rate. Where the large bucket helps is with newcomers, and
// those that missed something for long.
// All methods may be called from any goroutine; none blocks.
type freight struct {
	records *record.Map
	wake    chan struct{} // gets a token when there is something to send

	mu     sync.Mutex
	missed lane       // repairs of what a peer missed, and large values
	flux   lane       // repairs of what changes right now
	large  []entryKey // in the order of turns
	queued map[entryKey]uint64
	turn   bool // the next one is a large value's, if there is one
}

// lane is a row of jobs with a bucket.
type lane struct {
	bucket bucket
	jobs   []*job          // in the order of turns
	busy   map[string]bool // by the name of the peer: it has a job, queued or at work
}

func newLane(rate float64, burst time.Duration) lane {
	tokens := rate * burst.Seconds()
	return lane{bucket: bucket{rate: rate, burst: tokens, tokens: tokens}, busy: map[string]bool{}}
}

// need is what a peer lacks of one record.
type need struct {
	node  string
	since uint64
}

// job is what one peer lacks.
type job struct {
	lane   *lane
	to     memberlist.Node
	needs  []need
	stream bool // datagrams may not pass
	begun  bool
	until  time.Time
}

const (
	// maxPiece is the size at which a piece is closed. A record that has to be sent as a whole may be larger.
	maxPiece = 64 << 10
	maxJobs  = 64
	maxNeeds = 4096
	maxLarge = 1024
	// missedFor and fluxFor bound how old a job gets: by then the peer has most likely got it from somebody else.
	missedFor = 10 * time.Second
	fluxFor   = time.Second
	// missedBurst and fluxBurst are for how long a node may save up. With the default rate that is 8 MiB of what was missed: more than all
	// that a newcomer to a mesh of a thousand nodes with twenty tasks each has to be told.
	missedBurst = 64 * time.Second
	fluxBurst   = 2 * time.Second
)

func newFreight(records *record.Map, missed, flux float64) *freight {
	return &freight{
		records: records, wake: make(chan struct{}, 1), queued: map[entryKey]uint64{},
		missed: newLane(missed, missedBurst), flux: newLane(flux, fluxBurst),
	}
}

// repair queues what a peer lacks; missed says which of the two kinds. It tells whether it did: of each peer and kind there is one job at a
// time, and not of too many peers.
func (f *freight) repair(now time.Time, to memberlist.Node, needs []need, stream, missed bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, until := &f.flux, now.Add(fluxFor)
	if missed {
		l, until = &f.missed, now.Add(missedFor)
	}
	if l.busy[to.Name] || len(l.busy) >= maxJobs {
		return false
	}
	// Whoever helps the same peer begins elsewhere, so that they do not all tell it the same.
	rand.Shuffle(len(needs), func(i, j int) { needs[i], needs[j] = needs[j], needs[i] })
	l.busy[to.Name] = true
	l.jobs = append(l.jobs, &job{lane: l, to: to, needs: needs[:min(len(needs), maxNeeds)], stream: stream, until: until})
	wake(f.wake)
	return true
}

// news queues a large value. Its newest state is told when its turn comes.
func (f *freight) news(node string, generation uint64, key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := entryKey{node, key}
	if _, waits := f.queued[k]; !waits {
		if len(f.queued) >= maxLarge {
			return false
		}
		f.large = append(f.large, k)
	}
	f.queued[k] = generation
	wake(f.wake)
	return true
}

// next returns the job whose turn it is, or how long to wait, 0 where there is nothing to wait for. more says that there is something
// else to send out of the same bucket.
func (l *lane) next(now time.Time, more bool) (*job, time.Duration) {
	for len(l.jobs) > 0 && now.After(l.jobs[0].until) {
		delete(l.busy, l.jobs[0].to.Name)
		l.jobs = l.jobs[1:]
	}
	switch {
	case len(l.jobs) == 0 && !more:
		return nil, 0
	case !l.bucket.ready(now):
		return nil, l.bucket.wait()
	case len(l.jobs) == 0:
		return nil, 0
	}
	j := l.jobs[0]
	l.jobs = l.jobs[1:]
	return j, 0
}

// take returns what is to be sent next, either a job or a large value; else how long to wait, 0 where there is nothing to wait for.
// Either is to be followed by done.
func (f *freight) take(now time.Time) (j *job, k entryKey, generation uint64, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.turn = !f.turn; len(f.large) > 0 && f.missed.bucket.ready(now) && (f.turn || len(f.missed.jobs) == 0) {
		k, f.large = f.large[0], f.large[1:]
		generation = f.queued[k]
		delete(f.queued, k)
		return nil, k, generation, 0
	}
	j, wait = f.missed.next(now, len(f.large) > 0)
	if j == nil {
		var other time.Duration
		if j, other = f.flux.next(now, false); wait == 0 || other > 0 && other < wait {
			wait = other
		}
	}
	return j, k, 0, wait
}

// done takes note of what was sent, and gives a job back that has more to send. Without a job it was a large value.
func (f *freight) done(j *job, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case j == nil:
		f.missed.bucket.take(bytes)
		return
	case len(j.needs) == 0:
		delete(j.lane.busy, j.to.Name)
	default:
		j.lane.jobs = append(j.lane.jobs, j)
	}
	j.lane.bucket.take(bytes)
}

// charge takes note of what a round of anti-entropy sends beside repairs.
func (f *freight) charge(bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := &f.flux.bucket
	if b.ready(time.Now()); b.tokens > -b.burst { // rounds go on, whatever the rate: their debt is bounded
		b.take(bytes)
	}
}

// piece puts the next piece of a job together, nil if nothing of what the peer lacks is held any more.
func (f *freight) piece(now time.Time, j *job) []byte {
	var body []byte
	for len(j.needs) > 0 && len(body) < maxPiece {
		n := j.needs[0]
		j.needs = j.needs[1:]
		if delta := f.records.AgedDelta(now, n.node, n.since); delta != nil {
			if body == nil {
				body = appendHeader(nil, kindRepair)
			}
			body = appendBlob(body, delta)
		}
	}
	return body
}

// carry sends freight until the context ends.
func (m *Mesh) carry(ctx context.Context) {
	f := m.freight
	for ctx.Err() == nil {
		j, k, generation, wait := f.take(time.Now())
		switch {
		case j != nil:
			whole := !j.begun
			body := f.piece(time.Now(), j)
			j.begun = true
			whole = whole && len(j.needs) == 0
			if body != nil {
				m.metrics.repairsOut.Inc()
				if !whole || j.stream || len(body) > m.queue.largest || m.ml.Load().SendBestEffort(&j.to, body) != nil {
					m.ship(ctx, parcel{j.to, body})
				}
			}
			f.done(j, len(body))
		case k.node != "":
			delta := f.records.AgedEntries(time.Now(), nil, k.node, generation, []string{k.key})
			if delta == nil {
				continue
			}
			body := (&message{kind: kindHot, deltas: [][]byte{delta}}).append(nil)
			peers := m.peers.random(m.profile.fanout, k.node)
			for _, p := range peers {
				m.ship(ctx, parcel{p, body})
			}
			f.done(nil, len(peers)*len(body))
		default:
			// What is out of one bucket must not hold up what comes in for the other.
			var due <-chan time.Time
			if wait > 0 {
				due = time.After(wait)
			}
			select {
			case <-ctx.Done():
			case <-f.wake:
			case <-due:
			}
		}
	}
}

// ship waits for a sender: what is put together is in memory but once for each of them.
func (m *Mesh) ship(ctx context.Context, p parcel) {
	select {
	case m.bulk <- p:
	case <-ctx.Done():
	}
}
