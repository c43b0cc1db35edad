package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon"
	marathonapi "starling/marathon/api"
	"starling/marathon/state"
	"starling/master/election"
	"starling/master/election/zkelection"
	"starling/master/store/zkstore"
	"starling/master/zookeeper"
)

// below is where all of ours is, below the path of --zk: neither what other programs keep there nor an election of masters is
// in its way.
const below = "/ha"

// marathonZK are the settings of several Marathons over one state.
type marathonZK struct {
	zk          zkFlag
	session     flags.Millis
	versions    int
	backups     flags.Path
	lost        string
	timeout     flags.Millis
	prepare     flags.Millis
	connect     flags.Millis
	read        flags.Millis
	connections int
	anyName     bool
	deprecated  flags.List
}

func (m *marathonZK) register(s *flags.Set) {
	m.session = flags.Millis(zookeeper.DefaultSessionTimeout)
	m.connect, m.read, m.connections = flags.Millis(5*time.Second), flags.Millis(10*time.Second), 64
	m.versions = state.DefaultVersions
	s.Var(&m.zk, "zk", "where several instances keep their state and elect the one that leads, as `zk://[user:password@]host:port,.../path` or file:///path of a file that says it; without it this one is alone, and the state is in --work-dir")
	s.Var(&m.session, "zk-session-timeout", "after what time without a sign of life ZooKeeper gives up an instance, in `ms`: so long does an election take at least when a leader dies")
	s.IntVar(&m.versions, "zk-max-versions", m.versions, "how `many` versions of each app are kept")
	s.Var(&m.backups, "backup-location", "the `folder` in which DELETE /v2/leader?backup=file:///... writes, and where restore= reads; the default is backups in --work-dir")
	d := marathon.DefaultConfig()
	m.lost, m.timeout, m.prepare = lostStop, flags.Millis(d.StoreTimeout), flags.Millis(d.PrepareTimeout)
	s.StringVar(&m.lost, "lost-state", m.lost, "what to do where the store is empty though there was a framework: `stop` with exit code 108, restore the backup of a /path in the folder of the backups, or begin as a new one, whose predecessor's tasks end with its failover timeout")
	s.Var(&m.timeout, "zk-timeout", "how long one attempt to read or write the state may take, in `ms`")
	s.Var(&m.prepare, "on-elected-prepare-timeout", "how long one attempt to load all of the state may take, with a backup or restore before it, in `ms`")
	s.Var(&m.connect, "leader-proxy-connection-timeout", "how long an instance that does not lead tries to reach the one that does, in `ms`")
	s.Var(&m.read, "leader-proxy-read-timeout", "how long it waits there for an answer, in `ms`")
	s.IntVar(&m.connections, "leader-proxy-max-open-connections", m.connections, "how `many` requests it passes on at the same time")
	s.BoolVar(&m.anyName, "leader-proxy-ssl-ignore-hostname", false, "trust a leader whose certificate is for another name, where it is reached by HTTPS")
	s.Var(&m.deprecated, "deprecated-features", "`names` of old ways to be kept: proxy_events passes event streams on, where else clients are sent to the leader")
}

// lostStop is the value of --lost-state by default.
const lostStop = "stop"

// apply sets what holds with a state of its own, too.
func (m *marathonZK) apply(c *marathon.Config) error {
	if m.timeout > 0 {
		c.StoreTimeout = m.timeout.Std()
	}
	if m.prepare > 0 {
		c.PrepareTimeout = m.prepare.Std()
	}
	switch m.lost {
	case lostStop, "":
	case marathon.LostNew:
		c.Lost = marathon.LostNew
	default:
		if !filepath.IsAbs(m.lost) {
			return usagef("--lost-state: %q is neither stop nor new, and not the /path of a backup", m.lost)
		}
		c.Lost = (&url.URL{Scheme: "file", Path: filepath.ToSlash(m.lost)}).String()
	}
	return nil
}

// proxy is how the leader is reached. Its certificate may be signed by whom those in the file given are signed by: the
// instances have them from the same place.
func (m *marathonZK) proxy(cert flags.Path) (marathonapi.Proxy, error) {
	p := marathonapi.Proxy{
		ConnectTimeout: m.connect.Std(), ReadTimeout: m.read.Std(), MaxConns: m.connections,
		Events: slices.Contains(m.deprecated, "proxy_events"),
	}
	if cert == "" {
		return p, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	pem, err := os.ReadFile(string(cert))
	if err != nil {
		return p, usagef("--ssl-cert-file: %w", err)
	}
	roots.AppendCertsFromPEM(pem)
	p.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if m.anyName {
		p.TLS.InsecureSkipVerify = true // the chain is verified all the same
		p.TLS.VerifyConnection = func(state tls.ConnectionState) error {
			chain := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				chain.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: chain})
			return err
		}
	}
	return p, nil
}

// marathonElected makes a Marathon one among others, which goes by the host name and the port given.
func (r *role) marathonElected(m *marathonZK, c *marathon.Config, port int) error {
	if err := within(m.session.Std(), minZKSession, time.Hour); err != nil {
		return usagef("--zk-session-timeout: %w", err)
	}
	if err := r.lock(lockPatience); err != nil {
		return err
	}
	id, err := identity(r.place.dir, "marathon-id", newMasterID)
	if err != nil {
		return err
	}
	place := m.zk
	place.URL.Path = strings.TrimSuffix(place.URL.Path, "/") + below
	client, err := r.zooKeeper(&place, m.session.Std())
	if err != nil {
		return err
	}
	documents := zkstore.New(client)
	r.add("store", func(ctx context.Context) error { <-ctx.Done(); return documents.Close() })
	c.Store, c.ZK, c.ZKSession = documents, m.zk.String(), m.session.Std()
	c.Contender = zkelection.New(zkelection.Config{Client: client, Store: documents, Log: r.log})
	c.Election = zkelection.NewDetector(client, r.log)
	c.Candidate = election.Candidate{ID: id, Hostname: r.place.hostname, Address: r.place.address, Port: port, Version: marathon.APIVersion}
	return nil
}

// ExitCode is what the original exits with for an error that its users know it by, 0 for others.
func ExitCode(err error) int {
	switch {
	case errors.Is(err, marathon.ErrSuperseded):
		return 106
	case errors.Is(err, state.ErrNoFramework), errors.Is(err, marathon.ErrStateLost):
		return 108
	case errors.Is(err, marathon.ErrFrameworkRemoved):
		return 110
	default:
		return 0
	}
}
