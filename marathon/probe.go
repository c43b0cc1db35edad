package marathon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
)

const (
	// firstProbe bounds the wait for the first result of a check.
	firstProbe = 5 * time.Second
	// lateProbe is from when on a request that has no answer yet counts among the late ones, and lateProbes how many of
	// these there may be for each other one.
	lateProbe  = 250 * time.Millisecond
	lateProbes = 16
	// maxProbeBody is how much of an answer is read.
	maxProbeBody = 64 << 10
)

// prober runs the checks that are not the agent's: one goroutine a check, which mostly sleeps, and no more than so many
// requests at a time.
type prober struct {
	m    *Marathon
	ctx  context.Context
	http *http.Client
	// slots holds a token for each request under way, but those that have waited for their answer for a while: these hold one
	// of late, as they cost nothing but a connection, and many tasks that do not answer would hold up the checks of the others.
	slots, late chan struct{}
	wg          sync.WaitGroup

	// running belongs to the loop.
	running map[app.InstanceID]context.CancelFunc
}

func newProber(ctx context.Context, m *Marathon) *prober {
	return &prober{
		m: m, ctx: ctx, slots: make(chan struct{}, m.cfg.HealthChecks), late: make(chan struct{}, lateProbes*m.cfg.HealthChecks),
		running: make(map[app.InstanceID]context.CancelFunc),
		http: &http.Client{
			Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // as documented: the check is of life, not of identity
				DisableKeepAlives: true,
				DialContext:       (&net.Dialer{}).DialContext,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// start begins to check an instance.
func (p *prober) start(d scheduler.Probe) {
	p.stop(d.Instance.ID)
	ctx, cancel := context.WithCancel(p.ctx)
	p.running[d.Instance.ID] = cancel
	for n, check := range d.App.HealthChecks {
		if !check.Protocol.ByAgent() {
			p.wg.Go(func() { p.watch(ctx, d, n, check) })
		}
	}
	for _, check := range d.App.ReadinessChecks {
		p.wg.Go(func() { p.await(ctx, d, check) })
	}
}

// stop ends the checks of an instance.
func (p *prober) stop(id app.InstanceID) {
	if cancel := p.running[id]; cancel != nil {
		cancel()
		delete(p.running, id)
	}
}

// wait returns when all checks have ended; their context must have.
func (p *prober) wait() { p.wg.Wait() }

// watch runs a health check until ctx ends.
func (p *prober) watch(ctx context.Context, d scheduler.Probe, n int, check app.HealthCheck) {
	interval := time.Duration(max(1, check.IntervalSeconds)) * time.Second
	// Spread, so that the checks of tasks that started together do not stay together for ever.
	next := min(interval, firstProbe)
	timer := time.NewTimer(next/2 + rand.N(next/2+1))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(interval)
		alive, known, cause := p.check(ctx, d, check)
		if ctx.Err() != nil || !known {
			continue
		}
		p.m.enter(ctx, func(now time.Time) {
			p.m.core.Handle(now, scheduler.HealthResult{
				Instance: d.Instance.ID, TaskID: d.Instance.TaskID, Index: n, Alive: alive, Cause: cause,
			})
		})
	}
}

// slot waits until one more request may run, and returns what is to be called at its end; nil when ctx has ended.
func (p *prober) slot(ctx context.Context) (leave func()) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	var mu sync.Mutex
	holds := p.slots // what the request holds a token of, nil after its end; guarded by mu
	timer := time.AfterFunc(lateProbe, func() {
		mu.Lock()
		defer mu.Unlock()
		if holds == nil {
			return
		}
		select {
		case p.late <- struct{}{}:
			<-p.slots
			holds = p.late
		default: // there are too many: others wait as long as this one does
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		<-holds
		holds = nil
	}
}

// check runs a health check once. known is false for an answer that leaves things as they were.
func (p *prober) check(ctx context.Context, d scheduler.Probe, check app.HealthCheck) (alive, known bool, cause string) {
	leave := p.slot(ctx)
	if leave == nil {
		return false, false, ""
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, check.TimeoutSeconds))*time.Second)
	defer cancel()
	address, err := address(d, check.Port, check.PortIndex)
	if err != nil {
		return false, true, err.Error()
	}
	if check.Protocol == app.TCP {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false, true, plainCause(err)
		}
		_ = conn.Close()
		return true, true, ""
	}
	scheme := "http"
	if check.Protocol == app.HTTPS {
		scheme = "https"
	}
	// The last answer of the kind that announces another one. Only where that other one fails to come is it the answer.
	var interim atomic.Int32
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { interim.Store(int32(code)); return nil },
	})
	resp, err := p.get(ctx, scheme, address, check.Path)
	if code := int(interim.Load()); err != nil && code != 0 {
		return false, !check.IgnoreHTTP1xx, strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
	}
	if err != nil {
		return false, true, plainCause(err)
	}
	_ = resp.Body.Close()
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 399:
		return true, true, ""
	case resp.StatusCode < 200 && check.IgnoreHTTP1xx:
		return false, false, ""
	default:
		return false, true, resp.Status
	}
}

// get asks for a path. The caller closes the body.
func (p *prober) get(ctx context.Context, scheme, address, path string) (*http.Response, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	path, query, _ := strings.Cut(path, "?")
	target := url.URL{Scheme: scheme, Host: address, Path: path, RawQuery: query}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	return p.http.Do(req)
}

// await runs a readiness check until it has succeeded once, or ctx ends.
func (p *prober) await(ctx context.Context, d scheduler.Probe, check app.ReadinessCheck) {
	interval := time.Duration(max(1, check.IntervalSeconds)) * time.Second
	for {
		ready, response := p.ask(ctx, d, check)
		if ctx.Err() != nil {
			return
		}
		p.m.enter(ctx, func(now time.Time) {
			p.m.core.Handle(now, scheduler.ReadinessResult{
				Instance: d.Instance.ID, TaskID: d.Instance.TaskID, Name: check.Name, Ready: ready, Response: response,
			})
		})
		if ready {
			return
		}
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// ask runs a readiness check once. No answer counts as a 504 with the reason as its text.
func (p *prober) ask(ctx context.Context, d scheduler.Probe, check app.ReadinessCheck) (bool, scheduler.Response) {
	failed := func(err error) (bool, scheduler.Response) {
		return false, scheduler.Response{Status: http.StatusGatewayTimeout, ContentType: "text/plain", Body: plainCause(err)}
	}
	leave := p.slot(ctx)
	if leave == nil {
		return failed(context.Cause(ctx))
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, check.TimeoutSeconds))*time.Second)
	defer cancel()
	index := slices.IndexFunc(d.App.Ports(), func(port app.Port) bool { return port.Name == check.PortName })
	if index < 0 {
		return failed(fmt.Errorf("the app has no port %q", check.PortName))
	}
	address, err := address(d, nil, &index)
	if err != nil {
		return failed(err)
	}
	resp, err := p.get(ctx, strings.ToLower(check.Protocol), address, check.Path)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	return slices.Contains(check.HTTPStatusCodesForReady, resp.StatusCode), scheduler.Response{
		Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: string(body),
	}
}

// address is the host:port of a port of a task: the task's own address where it has one and the port is one of the
// container, else a host port of the agent.
func address(d scheduler.Probe, fixed, index *int) (string, error) {
	own := !d.App.HostMode() && d.App.Networks[0].Mode == app.ContainerNetwork
	host := d.Instance.Host
	if own && len(d.Instance.Addresses) > 0 {
		host = d.Instance.Addresses[0].IP
	}
	if fixed != nil {
		return net.JoinHostPort(host, strconv.Itoa(*fixed)), nil
	}
	n := 0
	if index != nil {
		n = *index
	}
	ports := d.App.Ports()
	if n < 0 || n >= len(ports) {
		return "", fmt.Errorf("the app has no port with the index %d", n)
	}
	if own && ports[n].Requested != 0 {
		return net.JoinHostPort(host, strconv.Itoa(ports[n].Requested)), nil
	}
	// Host ports are listed for those ports alone that have one.
	at := 0
	for _, port := range ports[:n] {
		if port.HostPort != nil {
			at++
		}
	}
	if ports[n].HostPort == nil || at >= len(d.Instance.Ports) {
		return "", fmt.Errorf("the port with the index %d has no number that can be reached", n)
	}
	return net.JoinHostPort(d.Instance.Host, strconv.Itoa(d.Instance.Ports[at])), nil
}

// plainCause says why a request failed without repeating where it went.
func plainCause(err error) string {
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}
