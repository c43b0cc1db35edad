package node

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon"
	"starling/marathon/metric"
)

// marathonMetrics are the settings of who is told Marathon's numbers.
type marathonMetrics struct {
	prefix     string
	prometheus bool

	statsd          bool
	statsdHost      string
	statsdPort      flags.Port
	statsdEvery     flags.Millis
	datadog         bool
	datadogProtocol string
	datadogHost     string
	datadogPort     flags.Port
	datadogKey      secretFlag
	datadogEvery    flags.Millis
	graphite        string
}

func defaultMarathonMetrics() marathonMetrics {
	every := flags.Millis(10 * time.Second)
	return marathonMetrics{
		prefix: marathon.DefaultConfig().MetricsPrefix, prometheus: true, datadogProtocol: "udp", statsdEvery: every, datadogEvery: every,
	}
}

func (m *marathonMetrics) register(s *flags.Set) {
	s.StringVar(&m.prefix, "metrics-name-prefix", m.prefix, "the `text` that the names of all metrics begin with")
	s.BoolVar(&m.prometheus, "metrics-prometheus", m.prometheus, "serve /metrics/prometheus")
	s.BoolVar(&m.statsd, "metrics-statsd", false, "push metrics to StatsD")
	s.StringVar(&m.statsdHost, "metrics-statsd-host", "", "the `host` of StatsD")
	s.Var(&m.statsdPort, "metrics-statsd-port", "the UDP `port` of StatsD")
	s.Var(&m.statsdEvery, "metrics-statsd-transmission-interval-ms", "between two pushes to StatsD, in `ms`")
	s.BoolVar(&m.datadog, "metrics-datadog", false, "push metrics to Datadog")
	s.StringVar(&m.datadogProtocol, "metrics-datadog-protocol", m.datadogProtocol, "`udp` for an agent of Datadog, or api")
	s.StringVar(&m.datadogHost, "metrics-datadog-host", "", "the `host` of Datadog's agent, or of its API (api: api.datadoghq.com)")
	s.Var(&m.datadogPort, "metrics-datadog-port", "the UDP `port` of Datadog's agent, or that of its API (api: 443)")
	s.Var(&m.datadogKey, "metrics-datadog-api-key", "the `key` for Datadog's API")
	s.Var(&m.datadogEvery, "metrics-datadog-transmission-interval-ms", "between two pushes to Datadog, in `ms`")
	s.StringVar(&m.graphite, "reporter-graphite", "", "push metrics to Graphite: `tcp://host:port?prefix=text&interval=seconds`")
}

// leastPush is the shortest time between two pushes.
const leastPush = 100 * time.Millisecond

// pushers makes those that the settings ask for, without what they gather.
func (m *marathonMetrics) pushers(hostname string) ([]*metric.Pusher, error) {
	var all []*metric.Pusher
	add := func(name string, sink metric.Sink, every time.Duration) {
		all = append(all, &metric.Pusher{Name: name, Sink: sink, Interval: every})
	}
	address := func(host string, port flags.Port) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	if m.statsd {
		if m.statsdHost == "" || m.statsdPort == 0 {
			return nil, usagef("--metrics-statsd needs --metrics-statsd-host and --metrics-statsd-port")
		}
		to := address(m.statsdHost, m.statsdPort)
		add("StatsD at "+to, metric.NewStatsD(metric.DialTo("udp", to)), m.statsdEvery.Std())
	}
	switch {
	case !m.datadog:
	case m.datadogProtocol == "udp":
		if m.datadogHost == "" || m.datadogPort == 0 {
			return nil, usagef("--metrics-datadog needs --metrics-datadog-host and --metrics-datadog-port")
		}
		to := address(m.datadogHost, m.datadogPort)
		add("Datadog's agent at "+to, metric.NewStatsD(metric.DialTo("udp", to)), m.datadogEvery.Std())
	case m.datadogProtocol == "api":
		if m.datadogKey == "" {
			return nil, usagef("--metrics-datadog-protocol=api needs --metrics-datadog-api-key")
		}
		host, port := m.datadogHost, m.datadogPort
		if host == "" {
			host = "api.datadoghq.com"
		}
		if port == 0 {
			port = 443
		}
		to := "https://" + address(host, port) + "/api/v1/series"
		add(to, metric.NewDatadog(to, string(m.datadogKey), hostname), m.datadogEvery.Std())
	default:
		return nil, usagef("--metrics-datadog-protocol: %q is neither udp nor api", m.datadogProtocol)
	}
	if m.graphite != "" {
		to, prefix, every, err := graphiteURL(m.graphite)
		if err != nil {
			return nil, err
		}
		add("Graphite at "+to, metric.NewGraphite(metric.DialTo("tcp", to), prefix), every)
	}
	for _, p := range all {
		if p.Interval < leastPush {
			return nil, usagef("%s: %s between two pushes is less than %s", p.Name, p.Interval, leastPush)
		}
	}
	return all, nil
}

func graphiteURL(text string) (to, prefix string, every time.Duration, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "tcp" || u.Port() == "" || u.Hostname() == "" {
		return "", "", 0, usagef("--reporter-graphite: %q is not as in tcp://host:port?prefix=text&interval=seconds", text)
	}
	every = 10 * time.Second
	if v := u.Query().Get("interval"); v != "" {
		n, err := strconv.ParseUint(v, 10, 20)
		if err != nil || n == 0 {
			return "", "", 0, usagef("--reporter-graphite: %q is not a number of seconds", v)
		}
		every = time.Duration(n) * time.Second
	}
	return u.Host, u.Query().Get("prefix"), every, nil
}

// push has the pushers tell a Marathon's numbers.
func (r *role) push(all []*metric.Pusher, m *marathon.Marathon) {
	for _, p := range all {
		p.Gather, p.Now, p.Log = m.Metrics, time.Now, r.log.With("component", "marathon/metric")
		r.add("metrics to "+p.Name, func(ctx context.Context) error { p.Run(ctx); return nil })
	}
}
