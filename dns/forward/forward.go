package forward

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What Exchange may fail with, beside the end of its context and ErrUnheard.
var (
	// ErrNoResolvers means that nobody is there to be asked.
	ErrNoResolvers = errors.New("there are no resolvers")
	// ErrBusy means that too many queries are under way.
	ErrBusy = errors.New("too many queries are under way to resolvers")
	// ErrUnheard means that no resolver was heard.
	ErrUnheard = errors.New("no resolver was heard")
	// ErrStopped means that Run has ended.
	ErrStopped = errors.New("forwarding has ended")
)

// Forwarder asks resolvers. Use New.
type Forwarder struct {
	config  Config
	cache   *cache
	limits  limits
	metrics *metrics
	// given are the resolvers of the configuration, zones those of some zones; without given ones the system's count.
	given  group
	zones  map[string]group
	system *system

	life   context.Context // of all queries to resolvers; ends with Run
	stop   context.CancelFunc
	flight sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	calls   map[callKey]*call
	// tries are the queries under way to resolvers, and those of calls that are about to begin.
	tries   int
	waiting int
}

// callKey is what clients can share: a truncated answer is of no use to one who came over TCP.
type callKey struct {
	question
	tcp bool
}

// call is one question under way, for all who ask it.
type call struct {
	done chan struct{} // closed when the rest is set
	// stored is the answer as the cache would have it, err why there is none.
	stored *entry
	err    error
}

// New makes a forwarder out of a configuration. Run must be called.
func New(c Config) (*Forwarder, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("cannot forward DNS queries: %w", err)
	}
	c.defaults()
	f := &Forwarder{
		config: c, cache: newCache(c.CacheBytes, c.CacheEntries), calls: map[callKey]*call{}, zones: map[string]group{},
		limits: limits{c.MinTTL, c.MaxTTL, c.MaxNegativeTTL, max(c.Stale, 0)},
	}
	f.metrics = newMetrics(c.Metrics, f)
	f.given = newGroup(c.Resolvers, c.Self, nil)
	if c.Resolvers == nil {
		f.system = &system{path: c.ResolvConf, self: c.Self}
	}
	for zone, list := range c.Zones {
		f.zones[zone] = newGroup(list, c.Self, nil)
	}
	f.life, f.stop = context.WithCancel(context.Background())
	return f, nil
}

// Run waits for ctx to end, then ends all queries to resolvers.
func (f *Forwarder) Run(ctx context.Context) error {
	<-ctx.Done()
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.stop()
	f.flight.Wait()
	return nil
}

// Resolvers lists who would be asked for a name, in the order of the configuration.
func (f *Forwarder) Resolvers(name string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, r := range f.group(dns.CanonicalName(name), time.Now()) {
		list = append(list, r.addr)
	}
	return list
}

// group finds the resolvers of a name: those of the longest zone that it is in, or those for all else.
func (f *Forwarder) group(name string, now time.Time) group {
	if len(f.zones) > 0 {
		for at, end := 0, false; !end; at, end = dns.NextLabel(name, at) {
			if g, ok := f.zones[name[at:]]; ok {
				return g
			}
		}
	}
	if f.system != nil {
		return f.system.resolvers(now)
	}
	return f.given
}

// everyone lists the resolvers of all groups.
func (f *Forwarder) everyone() group {
	list := slices.Clone(f.given)
	if f.system != nil {
		list = slices.Clone(f.system.resolvers(time.Now()))
	}
	for _, g := range f.zones {
		list = append(list, g...)
	}
	return list
}

func (f *Forwarder) pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}

// Exchange answers a query that has one question, out of the cache or from a resolver over the transport that the client
// used. The answer is the caller's; it has no EDNS0 record, and may be larger than the client can take.
func (f *Forwarder) Exchange(ctx context.Context, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	q := questionOf(query)
	now := time.Now()
	resolvers := f.group(q.name, now)
	e, refresh := f.cache.get(q, now)
	fresh := e != nil && now.Before(e.expires)
	if fresh {
		if refresh && len(resolvers) > 0 {
			f.prefetch(callKey{q, tcp}, resolvers)
		}
		f.metrics.hits.Inc()
		return e.reply(query, now.Sub(e.stored), false)
	}
	switch {
	case e != nil && (!refresh || len(resolvers) == 0):
		return f.stale(e, query)
	case len(resolvers) == 0: // only now: a list that empties when the network goes takes nothing from what is known
		return nil, ErrNoResolvers
	}
	f.metrics.misses.Inc()
	answer, err := f.wait(ctx, callKey{q, tcp}, resolvers, e != nil)
	if e != nil && (err != nil || !answer.conclusive()) {
		return f.stale(e, query)
	}
	if err != nil {
		return nil, err
	}
	return answer.reply(query, 0, false)
}

// errPatience is the end of waiting for better than a stale answer.
var errPatience = errors.New("there is a stale answer")

// wait asks the resolvers, or waits for another who does. Where there is a stale answer it does not wait for long, and not
// at all for resolvers that did not work before.
func (f *Forwarder) wait(ctx context.Context, k callKey, resolvers group, haveStale bool) (*entry, error) {
	f.mu.Lock()
	full := f.waiting >= f.config.Waiting
	if !full {
		f.waiting++
	}
	f.mu.Unlock()
	if full {
		f.metrics.busy.Inc()
		return nil, ErrBusy
	}
	defer func() {
		f.mu.Lock()
		f.waiting--
		f.mu.Unlock()
	}()
	worked := resolvers.works(k.tcp)
	c, _, err := f.call(k, resolvers)
	if err != nil {
		return nil, err
	}
	var patience <-chan time.Time
	if haveStale {
		if !worked {
			return nil, errPatience
		}
		t := time.NewTimer(f.config.Patience)
		defer t.Stop()
		patience = t.C
	}
	select {
	case <-c.done:
		return c.stored, c.err
	case <-patience:
		return nil, errPatience
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// prefetch fetches an answer anew that is about to end. What comes of it may be nothing that is kept, so that the next hit
// does not begin it again.
func (f *Forwarder) prefetch(k callKey, resolvers group) {
	if _, begun, err := f.call(k, resolvers); err == nil && begun {
		f.metrics.prefetched.Inc()
		f.cache.putOff(k.question, time.Now(), stalePause)
	}
}

// call returns the call of a question that is under way, or begins it. It lives on when those who wait for it do not: the
// next one to ask has its answer.
func (f *Forwarder) call(k callKey, resolvers group) (c *call, begun bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[k]; c != nil {
		return c, false, nil
	}
	if f.stopped {
		return nil, false, ErrStopped
	}
	if f.tries >= f.config.Concurrent {
		f.metrics.busy.Inc()
		return nil, false, ErrBusy
	}
	f.tries++ // its first
	c = &call{done: make(chan struct{})}
	f.calls[k] = c
	f.flight.Go(func() {
		c.stored, c.err = f.resolve(k, resolvers)
		f.mu.Lock()
		delete(f.calls, k)
		f.mu.Unlock()
		close(c.done)
	})
	return c, true, nil
}

// failurePause is how long a failure is remembered for the one question that failed (RFC 9520, 3.2), stalePause how long
// a stale answer is shown before resolvers are asked again.
const (
	failurePause = time.Second
	stalePause   = 5 * time.Second
)

// resolve asks resolvers, and keeps what the first says that is heard.
func (f *Forwarder) resolve(k callKey, resolvers group) (*entry, error) {
	now := time.Now()
	working, failed := resolvers.split(k.tcp)
	if len(working) > 0 {
		for _, r := range failed {
			if r.health(k.tcp).due(now) && f.book() {
				f.begin(r, resolvers, k, nil) // what counts is the resolver's health
			}
		}
	}
	if m := f.inTurn(working, failed, k); m != nil {
		return f.keep(k.question, m)
	}
	if f.life.Err() != nil {
		return nil, ErrStopped
	}
	if !f.cache.putOff(k.question, time.Now(), stalePause) {
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, RecursionAvailable: true, Rcode: dns.RcodeServerFailure}}
		if _, err := f.keep(k.question, m); err != nil {
			return nil, err
		}
	}
	return nil, ErrUnheard
}

// longestHush is how long a resolver may at most be silent before the next one is asked too: clients wait for us no longer
// than we do for a resolver.
const longestHush = 1250 * time.Millisecond

// hush is that time, a part of the timeout that leaves a datagram that was lost the time to be sent again.
func (f *Forwarder) hush() time.Duration { return min(f.config.Timeout/4, longestHush) }

// inTurn asks the resolvers that work, the next one when the one before fails or is silent for a while, and at last all
// others at once: when those come back, or when they do not, nobody should wait for one after the other. Who was asked
// and is silent may answer as well, and goes on until its timeout, which tells how it is.
func (f *Forwarder) inTurn(working, failed group, k callKey) *dns.Msg {
	all := slices.Concat(working, failed)
	answers := make(chan *dns.Msg, len(all)) // one of each, nil from those that are not heard; nobody waits to send
	running, left := 0, all
	ask := func() bool {
		// The first has its place by the call, and who is the only one under way that of the one before it.
		if len(left) == 0 || running > 0 && !f.book() {
			return false
		}
		if running == 0 && len(left) < len(all) {
			f.mu.Lock()
			f.tries++
			f.mu.Unlock()
		}
		f.begin(left[0], all, k, answers)
		running, left = running+1, left[1:]
		return true
	}
	hush := time.NewTimer(f.hush())
	defer hush.Stop()
	for {
		for ask() && len(left) < len(failed) {
			// of those, all
		}
		if running == 0 {
			return nil
		}
		hush.Reset(f.hush())
		select {
		case m := <-answers:
			if running--; m != nil {
				return m
			}
		case <-hush.C:
		}
	}
}

// book takes a place among the queries that are under way, or tells that there is none.
func (f *Forwarder) book() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped || f.tries >= f.config.Concurrent {
		return false
	}
	f.tries++
	return true
}

// begin asks one of some resolvers, for which there is a place, and gives the answer to a channel that has room; nil where
// there is none.
func (f *Forwarder) begin(r *resolver, among group, k callKey, answers chan<- *dns.Msg) {
	f.flight.Go(func() {
		m, _ := f.try(f.life, r, among, k) // its error is counted there
		f.mu.Lock()
		f.tries--
		f.mu.Unlock()
		if answers != nil {
			answers <- m
		}
	})
}

// try asks one of some resolvers and notes whether it was heard, unless ctx ends before that is known.
func (f *Forwarder) try(ctx context.Context, r *resolver, among group, k callKey) (*dns.Msg, error) {
	r.queries.Add(1)
	m, err := f.ask(ctx, r.addr, k.question, k.tcp)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		r.unheard.Add(1)
	}
	if r.health(k.tcp).report(time.Now(), err == nil) {
		f.tell(r, among, k.tcp, err)
	}
	return m, err
}

// tell logs that a resolver is not heard, and what is done instead, or that it is heard again.
func (f *Forwarder) tell(r *resolver, among group, tcp bool, err error) {
	log := f.config.Log.With("resolver", r.addr, "transport", transport(tcp))
	if err == nil {
		log.Info("resolver heard again")
		return
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", f.config.Timeout)
	}
	const none = "foreign names have what the cache still has, or SERVFAIL"
	instead := "the others are asked first"
	switch {
	case len(among) == 1:
		instead = "nobody: it is the only one; " + none
	case !among.works(tcp):
		instead = "nobody: none of the others is heard either; " + none
	}
	log.Warn("resolver not heard", "err", err, "instead", instead)
}

func (f *Forwarder) stale(e *entry, query *dns.Msg) (*dns.Msg, error) {
	f.metrics.stale.Inc()
	return e.reply(query, 0, true)
}
