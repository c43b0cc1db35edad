package metric

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	// packetSize is how much goes into one datagram: what fits through any link with a plain MTU.
	packetSize = 1432
	// mostPatience bounds one push, from the dialling on.
	mostPatience = 10 * time.Second
)

// Sink is somewhere to push to. Send is called by one goroutine at a time and obeys its context.
type Sink interface {
	Send(ctx context.Context, now time.Time, metrics []Metric) error
	Close()
}

// Pusher pushes to one sink.
type Pusher struct {
	// Name is that of the sink, for the log.
	Name string
	Sink Sink
	// Interval is between two pushes.
	Interval time.Duration
	// Gather returns what to push. Now is the wall clock.
	Gather func() []Metric
	Now    func() time.Time
	Log    *slog.Logger
}

// Run pushes until ctx ends. A push that fails is told of once, until one works again; what it had is lost.
func (p *Pusher) Run(ctx context.Context) {
	defer p.Sink.Close()
	ticker := time.NewTicker(p.Interval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		attempt, cancel := context.WithTimeout(ctx, min(p.Interval, mostPatience))
		err := p.Sink.Send(attempt, p.Now(), p.Gather())
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			p.Log.Warn("metrics can't be pushed; it is tried again and again", "to", p.Name, "err", err)
		case err == nil && failing:
			failing = false
			p.Log.Info("metrics are pushed again", "to", p.Name)
		}
	}
}

// Dial makes a connection.
type Dial func(ctx context.Context) (net.Conn, error)

// DialTo returns a Dial for an address.
func DialTo(network, address string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}

// line is a connection that is made when it is needed, and made anew after a failure.
type line struct {
	dial Dial
	conn net.Conn
}

// send writes the pieces, each by one call.
func (l *line) send(ctx context.Context, pieces [][]byte) error {
	if l.conn == nil {
		conn, err := l.dial(ctx)
		if err != nil {
			return fmt.Errorf("cannot connect: %w", err)
		}
		l.conn = conn
	}
	deadline, _ := ctx.Deadline() // none is the zero time, which is none
	err := l.conn.SetWriteDeadline(deadline)
	for i := 0; i < len(pieces) && err == nil; i++ {
		_, err = l.conn.Write(pieces[i])
	}
	if err != nil {
		l.Close()
		return fmt.Errorf("cannot send: %w", err)
	}
	return nil
}

// Close closes the connection.
func (l *line) Close() {
	if l.conn != nil {
		_ = l.conn.Close() // nothing was promised
		l.conn = nil
	}
}

// statsd speaks the protocol of StatsD, which DogStatsD understands too.
type statsd struct {
	line
	last map[string]float64 // what counters had when they were pushed
}

// NewStatsD returns a sink of datagrams: counters as what they have grown by, all else as gauges.
func NewStatsD(dial Dial) Sink {
	return &statsd{line: line{dial: dial}, last: make(map[string]float64)}
}

// Send implements Sink.
func (s *statsd) Send(ctx context.Context, _ time.Time, metrics []Metric) error {
	var packets [][]byte
	var packet []byte
	counts := make(map[string]float64)
	for _, m := range metrics {
		for _, p := range m.Parts() {
			name, value, kind := p.under(clean(m.Name)), p.Value, "|g"
			if p.Counts {
				counts[name], kind = value, "|c"
				if before := s.last[name]; before <= value { // else it has begun anew
					value -= before
				}
			}
			one := name + ":" + number(value) + kind
			if len(packet) > 0 && len(packet)+1+len(one) > packetSize {
				packets, packet = append(packets, packet), nil
			}
			if len(packet) > 0 {
				packet = append(packet, '\n')
			}
			packet = append(packet, one...)
		}
	}
	if len(packet) > 0 {
		packets = append(packets, packet)
	}
	if err := s.send(ctx, packets); err != nil {
		return err
	}
	s.last = counts
	return nil
}

// graphite speaks the plain-text protocol of Carbon.
type graphite struct {
	line
	prefix string
}

// NewGraphite returns a sink of lines over a connection that stays; a prefix, if not empty, stands before all names.
func NewGraphite(dial Dial, prefix string) Sink {
	return &graphite{line: line{dial: dial}, prefix: prefix}
}

// Send implements Sink.
func (g *graphite) Send(ctx context.Context, now time.Time, metrics []Metric) error {
	var out []byte
	for _, m := range metrics {
		name := clean(m.Name)
		if g.prefix != "" {
			name = clean(g.prefix) + "." + name
		}
		for _, p := range m.Parts() {
			out = append(out, p.under(name)+" "+number(p.Value)+" "+strconv.FormatInt(now.Unix(), 10)+"\n"...)
		}
	}
	return g.send(ctx, [][]byte{out})
}

// datadog speaks to Datadog's API.
type datadog struct {
	url, key, host string
	client         *http.Client
}

// NewDatadog returns a sink that posts series to a URL of Datadog's API, with a key, as those of a host.
func NewDatadog(url, key, host string) Sink {
	return &datadog{url: url, key: key, host: host, client: &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type series struct {
	Metric string       `json:"metric"`
	Points [][2]float64 `json:"points"`
	Type   string       `json:"type"`
	Host   string       `json:"host"`
}

// Send implements Sink.
func (d *datadog) Send(ctx context.Context, now time.Time, metrics []Metric) error {
	var all []series
	for _, m := range metrics {
		for _, p := range m.Parts() {
			all = append(all, series{p.under(clean(m.Name)), [][2]float64{{float64(now.Unix()), p.Value}}, "gauge", d.host})
		}
	}
	body, err := json.Marshal(map[string][]series{"series": all})
	if err != nil {
		return fmt.Errorf("cannot encode the series: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("DD-API-KEY", d.key)
	resp, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		err = errors.Join(fmt.Errorf("cannot push to Datadog: %s", resp.Status), err)
	}
	return err
}

// Close implements Sink.
func (d *datadog) Close() { d.client.CloseIdleConnections() }

// number writes a value without exponent, as these protocols want it.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
