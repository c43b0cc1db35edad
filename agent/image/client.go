package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// answerMax is how long an answer may be that is read into memory whole: a manifest, a token, an error.
const answerMax = 8 << 20

// client speaks to registries, and to nobody else: names of images come from frameworks, and answers of registries lead on
// to other hosts.
type client struct {
	transport *http.Transport
	plain     map[string]bool // HOST or HOST:PORT that may be spoken to without TLS
	stall     time.Duration
	linkLocal bool
}

func newClient(c Config, r registry) *client {
	cl := &client{plain: map[string]bool{}, stall: c.StallTimeout, linkLocal: c.LinkLocal}
	for _, host := range c.Insecure {
		cl.plain[host] = true
	}
	if r.insecure {
		cl.plain[r.host] = true
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second, ControlContext: cl.dials}
	cl.transport = &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8,
		IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: c.StallTimeout,
	}
	return cl
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// dials judges an address after the name has been looked up, so that no name can lead there.
func (c *client) dials(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	if ip = ip.Unmap(); ip.IsMulticast() || ip.IsUnspecified() || !c.linkLocal && isMetadata(ip) {
		return fmt.Errorf("refused to connect to %s: no address of a registry", ip)
	}
	return nil
}

// isMetadata tells whether an address may be that of a cloud's metadata service.
func isMetadata(ip netip.Addr) bool {
	return ip.IsLinkLocalUnicast() || ip == netip.MustParseAddr("fd00:ec2::254") || ip == netip.MustParseAddr("100.100.100.200")
}

// mayBePlain tells whether a host may be spoken to without TLS.
func (c *client) mayBePlain(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if c.plain[host] || c.plain[name] || name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.IsLoopback()
}

// errStalled is the cause when a registry sends nothing for too long.
var errStalled = errors.New("the registry sends nothing any more")

// RoundTrip sends one request. It refuses to go without TLS where that was not allowed, redirects included, and ends an answer that
// stalls.
func (c *client) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !c.mayBePlain(req.URL.Host) {
		return nil, fmt.Errorf("refused to speak to %s without TLS: it is not among the insecure registries", req.URL.Host)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := c.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &body{ctx: ctx, cancel: cancel, stall: c.stall, r: resp.Body, left: -1}
	// Only blobs are large: what is asked for as one, and where that was redirected to.
	if !strings.Contains(req.URL.Path, "/blobs/") && req.Response == nil || resp.StatusCode >= 300 {
		b.left = answerMax
	}
	b.timer = time.AfterFunc(c.stall, func() { cancel(errStalled) })
	resp.Body = b
	return resp, nil
}

// body is an answer that may not stall.
type body struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	r      io.ReadCloser
	left   int64 // how many bytes may still come; negative for any number
	once   sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			return 0, fmt.Errorf("the answer of the registry is longer than %d bytes", answerMax)
		}
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *body) Close() error {
	err := b.r.Close()
	b.once.Do(func() {
		b.timer.Stop()
		b.cancel(nil)
	})
	return err
}
