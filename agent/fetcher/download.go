package fetcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errTooLarge is for what is larger than it may be.
var errTooLarge = errors.New("it is larger than allowed")

// redirectMax is how many redirects are followed.
const redirectMax = 10

// client downloads. It runs in the child.
type client struct {
	roots  *x509.CertPool
	stall  time.Duration
	allow  []netip.Prefix
	hadoop string
}

// fetch writes what a source holds to a file, at most limit bytes of it (0: no limit), and returns its size and the mode
// that it has where it comes from.
func (c *client) fetch(ctx context.Context, s source, to *os.File, limit int64) (size int64, mode fs.FileMode, err error) {
	switch s.kind {
	case local:
		return copyLocal(s.uri, to, limit)
	case web:
		size, err = c.watched(ctx, func(ctx context.Context, progress func()) (int64, error) {
			return c.web(ctx, s.uri, writer{to, progress}, limit)
		})
	case ftp:
		size, err = c.watched(ctx, func(ctx context.Context, progress func()) (int64, error) {
			return c.ftp(ctx, s.uri, writer{to, progress}, limit)
		})
	case hadoop:
		size, err = c.watched(ctx, func(ctx context.Context, progress func()) (int64, error) {
			return c.hadoopClient(ctx, s.uri, writer{to, progress}, limit)
		})
	}
	return size, 0o644, err
}

// watched ends what gets no further for the stall timeout.
func (c *client) watched(ctx context.Context, f func(ctx context.Context, progress func()) (int64, error)) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("no data came for %v", c.stall)
	timer := time.AfterFunc(c.stall, func() { cancel(stalled) })
	defer timer.Stop()
	n, err := f(ctx, func() { timer.Reset(c.stall) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return n, err
}

// writer tells of each piece that was written.
type writer struct {
	io.Writer
	progress func()
}

func (w writer) Write(p []byte) (int, error) {
	if len(p) > 0 {
		w.progress()
	}
	return w.Writer.Write(p)
}

// copyAll copies at most limit bytes, and tells when there are more.
func copyAll(to io.Writer, from io.Reader, limit int64) (int64, error) {
	if limit <= 0 {
		return io.Copy(to, from)
	}
	n, err := io.Copy(to, io.LimitReader(from, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return n, err
}

func copyLocal(path string, to *os.File, limit int64) (int64, fs.FileMode, error) {
	// A look ahead of the opening: to open a device may already do something.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return 0, 0, plain(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return 0, 0, plain(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, 0, errors.New("it is no regular file")
	}
	n, err := copyAll(to, f, limit)
	return n, info.Mode().Perm() | 0o600, plain(err)
}

// web downloads over HTTP. Redirects are followed; the last answer has to be 200.
func (c *client) web(ctx context.Context, uri string, to io.Writer, limit int64) (int64, error) {
	dialer := &net.Dialer{Timeout: c.stall, Control: control(c.allow), Resolver: &net.Resolver{PreferGo: true}}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: c.roots},
		TLSHandshakeTimeout: c.stall, MaxResponseHeaderBytes: 64 << 10,
		// What is fetched is kept as it is, whatever it is packed with.
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return 0, errors.New("it is no valid URL")
	}
	req.Header.Set("User-Agent", "starling")
	if err := c.literal(req.URL); err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: transport, CheckRedirect: c.redirect}).Do(req)
	if err != nil {
		return 0, plain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the server answered %q, not 200", resp.Status)
	}
	n, err := copyAll(to, resp.Body, limit)
	if err != nil && errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the connection was cut after %d bytes", n)
	}
	return n, plain(err)
}

func (c *client) redirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > redirectMax:
		return fmt.Errorf("it was redirected more than %d times", redirectMax)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("it was redirected to the scheme %q", req.URL.Scheme)
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http":
		return errors.New("it was redirected from https to http")
	}
	return c.literal(req.URL)
}

// literal looks at a host that is an address: through a proxy it is never dialled from here.
func (c *client) literal(u *url.URL) error {
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && refused(a, c.allow) {
		return control(c.allow)("", netip.AddrPortFrom(a, 0).String(), nil)
	}
	return nil
}

// hadoopClient has the hadoop client write a file to us, which keeps all the bounds with us.
func (c *client) hadoopClient(ctx context.Context, uri string, to io.Writer, limit int64) (int64, error) {
	program := "hadoop"
	if c.hadoop != "" {
		program = filepath.Join(c.hadoop, "bin", "hadoop")
	}
	path, err := exec.LookPath(program)
	if err != nil {
		scheme, _, _ := strings.Cut(uri, "://")
		return 0, fmt.Errorf("the scheme %q takes a hadoop client, and there is none (--hadoop-home)", scheme)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "fs", "-cat", uri)
	said := &tail{}
	cmd.Stderr, cmd.WaitDelay = said, time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("cannot start the hadoop client: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("cannot start the hadoop client: %w", err)
	}
	n, err := copyAll(to, out, limit)
	if err != nil {
		cancel()
		_ = cmd.Wait()
		return n, err
	}
	if err := cmd.Wait(); err != nil {
		return n, fmt.Errorf("the hadoop client failed (%w): %s", err, strings.ToValidUTF8(strings.TrimSpace(string(said.last)), "\uFFFD"))
	}
	return n, nil
}

// tail keeps the end of what is written to it.
type tail struct{ last []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if n := len(t.last) - 500; n > 0 {
		t.last = append(t.last[:0], t.last[n:]...)
	}
	return len(p), nil
}

// plain leaves out of an error what repeats the URI, which may hold a password, or the path.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" && e.Addr == nil {
		err = e.Err
	}
	return err
}
