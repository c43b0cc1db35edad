package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"starling/gossip/record"
)

const (
	// While nobody answers, seeds and remembered peers are tried after these pauses, which double.
	firstJoin = time.Second
	lastJoin  = 10 * time.Second
	// Once in the mesh, seeds that are not members are still tried: they may be on the other side of a partition.
	seedsEvery = time.Minute
	// triesAtOnce bounds the dead peers that are tried in one go, and the exchanges that are under way at once.
	triesAtOnce    = 4
	aloneWarn      = time.Minute
	aloneSay       = time.Hour
	resolveTimeout = 5 * time.Second
	strangerFor    = time.Minute
	maxAddresses   = 16 // of one seed that are tried in one go
)

// join brings this node into the mesh and keeps it there: until somebody answers it tries all it knows of, and then goes on
// trying seeds and peers that are gone, for ever.
func (m *Mesh) join(ctx context.Context) {
	pause, alone := firstJoin, time.Now()
	var seedsNext, sayNext time.Time
	first := true
	for {
		now := time.Now()
		if m.peers.countAlive() == 0 {
			tried, missing := m.seedAddresses(ctx)
			for _, p := range m.peers.due(now, maxAddresses, true) {
				tried = append(tried, p.Address())
			}
			if first && len(tried) == 0 && len(missing) == 0 {
				m.synced.unnamed.Store(true)
				wake(m.synced.progress)
			}
			first = false
			if m.tryAll(ctx, tried) || m.tryOtherKey(ctx, tried) {
				pause = firstJoin
				m.log.Info("mesh joined", "dur", time.Since(alone).Round(time.Millisecond))
			} else if now.After(sayNext) {
				sayNext = m.sayAlone(now, tried, missing)
			}
			seedsNext = now.Add(seedsEvery)
		} else {
			alone = now
			var tries []string
			for _, p := range m.peers.due(now, triesAtOnce, false) {
				tries = append(tries, p.Address())
			}
			if now.After(seedsNext) {
				addrs, _ := m.seedAddresses(ctx)
				tries = append(tries, addrs...)
				seedsNext = now.Add(jitter(seedsEvery))
			}
			if len(tries) == 0 && m.strangers(now) {
				for _, p := range m.peers.random(1, "") {
					tries = append(tries, p.Address())
				}
			}
			m.tryAll(ctx, tries)
			pause = firstJoin
		}
		wait := jitter(pause)
		if m.peers.countAlive() > 0 {
			wait = jitter(firstRetry / 2)
		} else {
			pause = min(2*pause, lastJoin)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case addr := <-m.callers:
			t.Stop()
			m.found(ctx, addr)
		case <-m.rejoin:
			t.Stop()
			// Something was found or lost. Not at once: others have noticed as well.
			if !sleep(ctx, firstJoin) {
				return
			}
		case <-t.C:
		}
	}
}

// sayAlone says what is tried, and returns when to say it again. To be alone is in order for a node that was told of nobody.
func (m *Mesh) sayAlone(now time.Time, tried, missing []string) time.Time {
	mdns := "off"
	if m.cfg.Discover {
		mdns = "not yet"
		if on := m.discovering.Load(); on != nil {
			mdns = *on
		}
	}
	what := []any{"addr", m.self(), "tried", tried, "not_resolved", missing, "seeds", len(m.cfg.Join), "remembered", m.peers.countGone(), "mdns", mdns}
	if len(tried) > 0 || len(missing) > 0 {
		m.log.Warn("nobody found yet, going on", what...)
		return now.Add(aloneWarn)
	}
	m.log.Info("alone in the mesh: nobody to join was named or is remembered", what...)
	return now.Add(aloneSay)
}

// seedAddresses resolves the seeds, without those that are this node or live members, and names those that have no address.
func (m *Mesh) seedAddresses(ctx context.Context) (addrs, missing []string) {
	add := func(ip net.IP, port int) {
		a := net.JoinHostPort(ip.String(), strconv.Itoa(port))
		if a != m.self() && !m.peers.aliveAt(a) && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	for _, s := range m.cfg.Join {
		host, port, err := splitSeed(s)
		if err != nil {
			continue // Validate has refused it
		}
		if ip := net.ParseIP(host); ip != nil {
			add(ip, port)
			continue
		}
		rctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		ips, err := m.resolve(rctx, host)
		cancel()
		if err != nil {
			m.log.Debug("seed not resolved", "addr", s, "err", err)
			missing = append(missing, s)
			continue
		}
		if len(ips) > maxAddresses { // others next time
			rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
		}
		for _, ip := range ips[:min(len(ips), maxAddresses)] {
			add(ip.IP, port)
		}
	}
	return addrs, missing
}

// exchange exchanges state with whoever is at an address.
func (m *Mesh) exchange(ctx context.Context, addr string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := m.ml.Load().Join([]string{addr})
	if err != nil {
		m.log.Debug("peer not reached", "addr", addr, "err", err)
	}
	return err
}

// tryAll exchanges state with each of the addresses, a few at a time, and tells whether one answered.
func (m *Mesh) tryAll(ctx context.Context, addrs []string) bool {
	var ok atomic.Bool
	var g errgroup.Group
	g.SetLimit(triesAtOnce)
	for _, a := range addrs {
		g.Go(func() error {
			if m.exchange(ctx, a) == nil && m.countMembers() > 0 { // it may have been this node itself under another address
				ok.Store(true)
			}
			return nil
		})
	}
	_ = g.Wait()
	return ok.Load()
}

// strangers tells whether there are records that came lately of nodes that memberlist has not heard of. Then an exchange with
// somebody is due: where datagrams do not pass, it would else be long until memberlist's next one.
func (m *Mesh) strangers(now time.Time) bool {
	for s := range m.records.Snapshots() {
		if s.Liveness() == record.Unknown && now.Sub(s.Since()) < strangerFor {
			return true
		}
	}
	return false
}

// countMembers asks memberlist itself, which knows at once.
func (m *Mesh) countMembers() int { return m.ml.Load().NumMembers() - 1 }

// found is called with the address of a node that was discovered.
func (m *Mesh) found(ctx context.Context, addr string) {
	if addr == m.self() || m.peers.aliveAt(addr) {
		return
	}
	if m.tryAll(ctx, []string{addr}) {
		m.log.Debug("peer discovered", "addr", addr)
	}
}

// peerOf finds a live peer, if need be in memberlist's own list: a message may come before the event of its sender was dealt with.
func (m *Mesh) peerOf(name string) (memberlist.Node, bool) {
	if n, ok := m.peers.get(name); ok {
		return n, true
	}
	if name == m.cfg.NodeID {
		return memberlist.Node{}, false
	}
	return m.members.get(name)
}
