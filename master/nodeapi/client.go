package nodeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// ClientConfig says how a Client sends.
type ClientConfig struct {
	// Signer signs the requests and opens the seals of the answers; nil sends plain requests and takes any answer.
	Signer *Signer
	// Timeout ends a call that got no whole answer; 0 is DefaultTimeout. A nearer deadline of the context wins.
	Timeout time.Duration
	// TLS, where set, makes the client speak HTTPS with it.
	TLS *tls.Config
	// Dial replaces the network, for tests; nil is TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// DefaultTimeout is what a call takes at most unless ClientConfig says otherwise.
const DefaultTimeout = 10 * time.Second

// maxOffsets bounds the clocks that a client remembers. One is remembered only of a node whose clock is off, and a
// forgotten one costs one more round trip.
const maxOffsets = 4096

// Client sends calls and reports. It is safe for use by several goroutines.
type Client struct {
	signer  *Signer
	timeout time.Duration
	scheme  string
	http    *http.Client

	mu sync.Mutex // guards offsets
	// offsets is what the clock of an address is ahead of ours, where requests were refused for it.
	offsets map[string]time.Duration
}

// NewClient returns a client. It keeps connections, each idle one for a minute and a half; Close ends them.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: cfg.Timeout, KeepAlive: 15 * time.Second}).DialContext
	}
	t := &http.Transport{
		// No proxy from the environment: these are neighbours.
		DialContext:           cfg.Dial,
		TLSClientConfig:       cfg.TLS,
		TLSHandshakeTimeout:   cfg.Timeout,
		ResponseHeaderTimeout: cfg.Timeout,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   4,
		MaxConnsPerHost:       16,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true,
	}
	c := &Client{
		signer: cfg.Signer, timeout: cfg.Timeout, scheme: "http", offsets: make(map[string]time.Duration),
		http: &http.Client{
			Transport:     t,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if cfg.TLS != nil {
		c.scheme = "https"
	}
	return c
}

// Close ends idle connections. Calls under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call sends a call to the agent at addr ("host:port") and returns its reply. An answer that refuses is a *Refusal, which
// wraps the error of this package that it stands for. Any other error leaves open whether the call was carried out: it
// may be repeated.
func (c *Client) Call(ctx context.Context, addr string, call *Call) (*Reply, error) {
	reply := new(Reply)
	if err := c.send(ctx, addr, PathCall, call, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// Report sends a report to the master at addr ("host:port"). Errors are those of Call.
func (c *Client) Report(ctx context.Context, addr string, report *Report) error {
	return c.send(ctx, addr, PathReport, report, new(ReportReply))
}

func (c *Client) send(ctx context.Context, addr, path string, m, answer proto.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if len(body) > MaxBody {
		return fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLarge, len(body), MaxBody)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	got, err := c.once(ctx, addr, path, body)
	switch _, skew := errors.AsType[*skewError](err); {
	case skew:
		// The node's clock is another one: sign by it.
		got, err = c.once(ctx, addr, path, body)
	case errors.Is(err, errIdleGone) && ctx.Err() == nil:
		// The node closed a kept connection just when it was used again. Messages may be repeated; the signature may not.
		got, err = c.once(ctx, addr, path, body)
	}
	if err != nil {
		return err
	}
	if err := unmarshal(got, answer); err != nil {
		return fmt.Errorf("cannot decode answer of %q: %w", addr, err)
	}
	return nil
}

// errIdleGone marks the failure of a connection that had been kept from an earlier call.
var errIdleGone = errors.New("kept connection was closed")

// skewError is a refusal for the clock alone, by a node that proved to have the key.
type skewError struct{ *Refusal }

// Unwrap lets the refusal be found where the second try failed like the first.
func (e *skewError) Unwrap() error { return e.Refusal }

// once sends the body once and returns that of an answer with status 200.
func (c *Client) once(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	var kept bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { kept = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme+"://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	req.Header.Set("Content-Type", ContentType)
	var with seal
	if c.signer != nil {
		var clock, sum string
		with.key, clock, with.nonce, sum = c.signer.sign(http.MethodPost, path, body, c.offset(addr))
		req.Header.Set(headerTime, clock)
		req.Header.Set(headerNonce, with.nonce)
		req.Header.Set(headerMAC, sum)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if kept && ctx.Err() == nil {
			return nil, fmt.Errorf("%w: %w", errIdleGone, err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read answer of %q: %w", addr, err)
	}
	if len(got) > MaxBody {
		return nil, fmt.Errorf("answer of %q: %w", addr, ErrTooLarge)
	}
	return c.judge(addr, with, resp, got)
}

// judge says what an answer means, after making sure that it comes from a node with the key.
func (c *Client) judge(addr string, with seal, resp *http.Response, body []byte) ([]byte, error) {
	epoch := resp.Header.Get(headerEpoch)
	known, _ := strconv.ParseUint(epoch, 10, 64) // 0, which tells nothing, where it is none
	refused := refusal(addr, resp.StatusCode, string(body), known)
	if c.signer != nil {
		clock := resp.Header.Get(headerTime)
		sealed := with.key != nil && sameMAC(replyMAC(with.key, with.nonce, resp.StatusCode, clock, epoch, body), resp.Header.Get(headerMAC))
		switch {
		case sealed && resp.StatusCode == http.StatusUnauthorized:
			if c.learn(addr, clock) {
				return nil, &skewError{refused}
			}
		case !sealed && resp.StatusCode != http.StatusUnauthorized:
			// Anybody between us may have written it, so it stands for no error that someone acts upon.
			refused.err = nil
			refused.Text = "answer is not authenticated: " + refused.Text
			return nil, refused
		}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refused
	}
	return body, nil
}

func (c *Client) offset(addr string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offsets[addr]
}

// learn remembers the clock of a node.
func (c *Client) learn(addr, clock string) bool {
	theirs, err := strconv.ParseInt(clock, 10, 64)
	if err != nil {
		return false
	}
	offset := time.UnixMilli(theirs).Sub(c.signer.now())
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.offsets) >= maxOffsets {
		for other := range c.offsets {
			delete(c.offsets, other)
			break
		}
	}
	c.offsets[addr] = offset
	return true
}
