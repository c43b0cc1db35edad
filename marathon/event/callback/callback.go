// Package callback posts events to URLs that have asked for them.
//
// Each URL gets its events in order, one request at a time, out of a queue of its own that is bounded. A request that fails, is
// answered by anything but 2xx or takes too long drops what the queue holds, and after the n-th failure in a row nothing
// is sent to that URL for 2^n seconds: events of that time are dropped. Drops are counted and told in the log, once a pause.
//
// However many URLs hang, few goroutines wait for them: there are two lanes with a fixed number of senders each, one for URLs
// whose last request succeeded and one for all others, so that dead ones can't hold up those that work. A sender exists while
// there is something to send. While more URLs wait in the second lane than it has senders, its requests get a second each.
//
// Sender.Run owns all goroutines; the other methods may be called from anywhere.
package callback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"starling/marathon/event"
)

const (
	// DefaultQueue is how many events wait for one URL at most.
	DefaultQueue = 512
	// goodSenders and otherSenders are the sizes of the lanes. A request takes up to three goroutines, those of Go's client
	// included.
	goodSenders  = 8
	otherSenders = 6
	// hurry bounds a request in the second lane while more wait than it can take.
	hurry = time.Second
	// mostDoublings bounds the pause after failures, to about a quarter of an hour.
	mostDoublings = 10
	// answerLimit is how much of an answer is read, for nothing but the connection's sake.
	answerLimit = 16 << 10
)

// Config is what a Sender is made of.
type Config struct {
	// Timeout bounds a request.
	Timeout time.Duration
	// Queue is how many events wait for one URL; 0 is DefaultQueue.
	Queue int
	// Transport makes the requests; nil is a plain one that keeps no connections.
	Transport http.RoundTripper
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger
	// Sent, Failed and Dropped count requests and events; nil does not.
	Sent, Failed, Dropped func(n int)
	// Paused is told each time that a URL gets nothing for a while; nil is not. It must not block, nor call the Sender.
	Paused func(event.CallbackPaused)
}

// Sender posts events to URLs.
type Sender struct {
	cfg    Config
	client *http.Client

	mu      sync.Mutex // guards what follows
	targets map[string]*target
	good    lane
	other   lane
	// run is set while Run runs: the context of requests, and what waits for the senders.
	run     context.Context
	senders sync.WaitGroup
}

// target is one URL.
type target struct {
	url      string
	queue    []event.Frame
	busy     bool // waits in a lane, or a request is under way
	works    bool // the last request succeeded
	failures int  // in a row
	until    time.Time
	told     bool // that its queue is full, until that is over
	removed  bool
}

// lane is a number of senders, and those that wait for one of them.
type lane struct {
	size, running int
	waiting       []*target
}

// New returns a Sender without URLs.
func New(cfg Config) *Sender {
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
			// One address after the other: to try both families at once would take goroutines of its own.
			DialContext: (&net.Dialer{FallbackDelay: -1}).DialContext,
		}
	}
	none := func(int) {}
	for _, f := range []*func(int){&cfg.Sent, &cfg.Failed, &cfg.Dropped} {
		if *f == nil {
			*f = none
		}
	}
	if cfg.Paused == nil {
		cfg.Paused = func(event.CallbackPaused) {}
	}
	return &Sender{
		cfg: cfg, targets: make(map[string]*target), good: lane{size: goodSenders}, other: lane{size: otherSenders},
		client: &http.Client{
			Transport:     cfg.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Set says to which URLs events go from now on. Those that stay keep their queue and their pause.
func (s *Sender) Set(urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for url, t := range s.targets {
		if !slices.Contains(urls, url) {
			t.removed, t.queue = true, nil
			delete(s.targets, url)
		}
	}
	for _, url := range urls {
		if s.targets[url] == nil {
			s.targets[url] = &target{url: url}
		}
	}
}

// Run posts what a bus tells, until ctx ends or the bus is closed, and ends when no request is under way any more. It may run
// again after that, with what is new by then. It begins with what sub has heard, a subscription to all events of that bus, which
// it closes: so nothing is lost of what is told before it runs.
func (s *Sender) Run(ctx context.Context, bus *event.Bus, sub *event.Subscription) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.run = ctx
	s.mu.Unlock()
	defer s.senders.Wait()
	defer cancel()
	defer s.stop()
	defer func() { sub.Close() }()
	for {
		frames, err := sub.Next(ctx)
		switch {
		case err == nil:
			for _, f := range frames {
				s.post(f)
			}
		case errors.Is(err, event.ErrSlow):
			s.cfg.Log.Warn("events came faster than they could be handed to callbacks; some were lost")
			sub = bus.Subscribe(0)
		default:
			return
		}
	}
}

// stop forgets what waits. Requests under way end with the context.
func (s *Sender) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = nil
	s.good.waiting, s.other.waiting = nil, nil
	for _, t := range s.targets {
		t.queue, t.busy = nil, false
	}
}

// post puts an event into all queues.
func (s *Sender) post(f event.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for _, t := range s.targets {
		switch {
		case now.Before(t.until):
			s.cfg.Dropped(1)
		case len(t.queue) >= s.cfg.Queue:
			s.cfg.Dropped(1)
			if !t.told {
				t.told = true
				s.cfg.Log.Warn("callback is too slow; events are dropped while its queue is full", "url", shown(t.url))
			}
		default:
			t.queue = append(t.queue, f)
			s.wait(t)
		}
	}
}

// wait has a target with events wait for a sender. It is called with the lock.
func (s *Sender) wait(t *target) {
	if t.busy || t.removed || len(t.queue) == 0 || s.run == nil {
		return
	}
	t.busy = true
	l := &s.other
	if t.works {
		l = &s.good
	}
	l.waiting = append(l.waiting, t)
	if l.running < l.size {
		l.running++
		ctx := s.run
		s.senders.Go(func() { s.send(ctx, l) })
	}
}

// send serves one lane until nobody waits in it.
func (s *Sender) send(ctx context.Context, l *lane) {
	for {
		t, frame, timeout := s.next(ctx, l)
		if t == nil {
			return
		}
		s.done(ctx, t, s.deliver(ctx, t.url, frame, timeout))
	}
}

// next takes the target that has waited longest, with its first event; nil ends the sender.
func (s *Sender) next(ctx context.Context, l *lane) (*target, event.Frame, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(l.waiting) > 0 && ctx.Err() == nil {
		t := l.waiting[0]
		l.waiting = l.waiting[1:]
		if len(t.queue) == 0 { // it was removed meanwhile
			t.busy = false
			continue
		}
		frame := t.queue[0]
		t.queue = t.queue[1:]
		timeout := s.cfg.Timeout
		if l == &s.other && len(l.waiting) > l.size {
			timeout = min(timeout, hurry)
		}
		return t, frame, timeout
	}
	l.running--
	return nil, event.Frame{}, 0
}

// deliver makes one request.
func (s *Sender) deliver(ctx context.Context, url string, f event.Frame, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(f.Data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, answerLimit))
	return err
}

// done takes note of how a request went.
func (s *Sender) done(ctx context.Context, t *target, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return // all is over, or a later Run has the target
	}
	t.busy = false
	if err == nil {
		s.cfg.Sent(1)
		t.works, t.failures = true, 0
		t.told = t.told && len(t.queue) > 0
		s.wait(t)
		return
	}
	s.cfg.Failed(1)
	t.works = false
	t.failures++
	pause := time.Second << min(t.failures, mostDoublings)
	t.until = s.cfg.Now().Add(pause)
	dropped := len(t.queue)
	t.queue = nil
	s.cfg.Dropped(dropped)
	if !t.removed {
		s.cfg.Log.Warn("callback failed; events for it are dropped for a while", "url", shown(t.url), "failures", t.failures,
			"for", pause, "dropped", dropped, "err", causeOf(err))
		s.cfg.Paused(event.CallbackPaused{
			CallbackURL: shown(t.url), Failures: t.failures, PauseSeconds: int(pause / time.Second), Dropped: dropped, Reason: causeOf(err).Error(),
		})
	}
}

// shown is a URL without what may be secret in it.
func shown(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL that does not parse"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// causeOf is what went wrong with a request, without its URL.
func causeOf(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
