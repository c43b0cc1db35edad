package marathon

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"starling/marathon/event"
	"starling/marathon/event/callback"
	"starling/marathon/state"
)

// Callbacks are the settings of events posted to URLs.
type Callbacks struct {
	// On switches them on.
	On bool
	// URLs are added to those that have subscribed, at the beginning of each term.
	URLs []string
	// Timeout bounds a request.
	Timeout time.Duration
}

const (
	// mostCallbacks and longestCallback bound what is stored.
	mostCallbacks   = 1000
	longestCallback = 2048
)

var (
	// ErrNoCallbacks tells that callbacks are switched off.
	ErrNoCallbacks = errors.New("callbacks are switched off")
	// ErrCallback tells that a URL can't be called.
	ErrCallback = errors.New("cannot be a callback")
)

// CheckCallback returns an ErrCallback for what is no URL that events can be posted to.
func CheckCallback(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCallback, err)
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return fmt.Errorf("%w: %q is not the URL of an HTTP server", ErrCallback, text)
	case len(text) > longestCallback:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrCallback, longestCallback)
	}
	return nil
}

// newSender returns nil where callbacks are off.
func (m *Marathon) newSender() *callback.Sender {
	if !m.cfg.Callbacks.On {
		return nil
	}
	count := func(name string) func(int) {
		return func(n int) { m.registry.Counter("events.callbacks." + name + ".counter").Add(int64(n)) }
	}
	return callback.New(callback.Config{
		Timeout: m.cfg.Callbacks.Timeout, Now: m.cfg.Now, Log: m.log,
		Sent: count("sent"), Failed: count("failed"), Dropped: count("dropped"),
		Paused: func(p event.CallbackPaused) { m.publish(p) },
	})
}

// startCallbacks hands the sender its URLs at the beginning of a term, under the lock.
func (m *Marathon) startCallbacks() {
	urls := m.core.View().Callbacks()
	all := slices.Clone(urls)
	for _, u := range m.cfg.Callbacks.URLs {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	switch err := state.CheckCallbacks(all); {
	case err != nil:
		m.log.Error("the callbacks of the settings don't fit beside those that have subscribed, and are left out", "err", err)
		all = urls
	case len(all) > len(urls):
		m.core.SetCallbacks(all)
	}
	m.sender.Set(all)
}

// Callbacks returns the URLs that events are posted to. It returns ErrNoCallbacks where that is switched off.
func (m *Marathon) Callbacks() ([]string, error) {
	if m.sender == nil {
		return nil, ErrNoCallbacks
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.core == nil {
		return nil, ErrNotReady
	}
	return m.core.View().Callbacks(), nil
}

// Subscribe has events posted to a URL from now on, on behalf of a client, and returns the event that tells of it. It returns
// ErrNoCallbacks, and ErrCallback for a URL that can't be called.
func (m *Marathon) Subscribe(ctx context.Context, url, clientIP string) (event.Frame, error) {
	if err := CheckCallback(url); err != nil {
		return event.Frame{}, err
	}
	return m.editCallbacks(ctx, event.Subscribe{ClientIP: clientIP, CallbackURL: url}, func(urls []string) ([]string, error) {
		switch {
		case slices.Contains(urls, url):
			return urls, nil
		case len(urls) >= mostCallbacks:
			return nil, fmt.Errorf("%w: there are %d already", ErrCallback, len(urls))
		}
		urls = append(urls, url)
		if err := state.CheckCallbacks(urls); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCallback, err)
		}
		return urls, nil
	})
}

// Unsubscribe ends Subscribe; a URL that is not known is no error.
func (m *Marathon) Unsubscribe(ctx context.Context, url, clientIP string) (event.Frame, error) {
	return m.editCallbacks(ctx, event.Unsubscribe{ClientIP: clientIP, CallbackURL: url}, func(urls []string) ([]string, error) {
		return slices.DeleteFunc(urls, func(u string) bool { return u == url }), nil
	})
}

// editCallbacks changes the list, of which edit gets a copy, and tells of it.
func (m *Marathon) editCallbacks(ctx context.Context, p event.Payload, edit func([]string) ([]string, error)) (event.Frame, error) {
	if m.sender == nil {
		return event.Frame{}, ErrNoCallbacks
	}
	err := m.await(ctx, func(time.Time) error {
		before := m.core.View().Callbacks()
		urls, err := edit(slices.Clone(before))
		if err != nil {
			return err
		}
		if !slices.Equal(urls, before) {
			m.core.SetCallbacks(urls)
			m.sender.Set(urls)
		}
		m.core.Announce(p)
		return nil
	})
	if err != nil {
		return event.Frame{}, err
	}
	return event.Encode(m.cfg.Now(), p)
}
