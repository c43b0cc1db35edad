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
// piece at a time, so that memory holds keys and versions and not copies of records; peers take turns, and one token bucket
// bounds it all: neither a thousand newcomers nor the other half of a mesh that comes back drown a node. What is refused or
// given up is asked for again by the next round of anti-entropy, most likely of somebody else.
// All methods may be called from any goroutine; none blocks.
type freight struct {
	records *record.Map
	wake    chan struct{} // gets a token when there is something to send

	mu     sync.Mutex
	bucket bucket
	jobs   []*job          // in the order of turns
	busy   map[string]bool // by the name of the peer: it has a job, queued or at work
	large  []entryKey      // in the order of turns
	queued map[entryKey]uint64
	turn   bool // the next one is a large value's, if there is one
}

// need is what a peer lacks of one record.
type need struct {
	node  string
	since uint64
}

// job is what one peer lacks.
type job struct {
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
	// jobFor bounds how old a job gets: by then the peer has most likely got it from somebody else.
	jobFor = 10 * time.Second
	// freightBurst is for how many seconds' worth of its rate a node may send at once. With the default rate that is 8 MiB: more than all
	// that a newcomer to a mesh of a thousand nodes with twenty tasks each has to be told.
	freightBurst = 64
)

func newFreight(records *record.Map, rate int) *freight {
	burst := freightBurst * float64(rate)
	return &freight{
		records: records, wake: make(chan struct{}, 1), busy: map[string]bool{}, queued: map[entryKey]uint64{},
		bucket: bucket{rate: float64(rate), burst: burst, tokens: burst},
	}
}

// repair queues what a peer lacks. It tells whether it did: of each peer there is one job at a time, and not of too many.
func (f *freight) repair(now time.Time, to memberlist.Node, needs []need, stream bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[to.Name] || len(f.busy) >= maxJobs {
		return false
	}
	// Whoever helps the same peer begins elsewhere, so that they do not all tell it the same.
	rand.Shuffle(len(needs), func(i, j int) { needs[i], needs[j] = needs[j], needs[i] })
	f.busy[to.Name] = true
	f.jobs = append(f.jobs, &job{to: to, needs: needs[:min(len(needs), maxNeeds)], stream: stream, until: now.Add(jobFor)})
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

// take returns what is to be sent next, either a job or a large value; else how long to wait, 0 where there is nothing to wait for.
// A job is given back by done.
func (f *freight) take(now time.Time) (j *job, k entryKey, generation uint64, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.jobs) > 0 && now.After(f.jobs[0].until) {
		delete(f.busy, f.jobs[0].to.Name)
		f.jobs = f.jobs[1:]
	}
	switch {
	case len(f.jobs) == 0 && len(f.large) == 0:
		return nil, k, 0, 0
	case !f.bucket.ready(now):
		return nil, k, 0, f.bucket.wait()
	}
	f.turn = !f.turn
	if len(f.large) > 0 && (f.turn || len(f.jobs) == 0) {
		k, f.large = f.large[0], f.large[1:]
		generation = f.queued[k]
		delete(f.queued, k)
		return nil, k, generation, 0
	}
	j, f.jobs = f.jobs[0], f.jobs[1:]
	return j, k, 0, 0
}

// done takes note of what was sent, and gives a job back that has more to send.
func (f *freight) done(j *job, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bucket.take(bytes)
	switch {
	case j == nil:
	case len(j.needs) == 0:
		delete(f.busy, j.to.Name)
	default:
		f.jobs = append(f.jobs, j)
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
		case wait > 0:
			sleep(ctx, wait)
		default:
			select {
			case <-ctx.Done():
			case <-f.wake:
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
