package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"starling/cmd/internal/flags"
	"starling/marathon"
	marathonapi "starling/marathon/api"
)

const marathonHTTPSPort = 8443

// marathonHTTP are the settings of how Marathon's API is reached. The zero value is that of the flags' defaults, but for off.
type marathonHTTP struct {
	on               bool
	httpsAddress     flags.IP
	httpsPort        flags.Port
	cert, key        flags.Path
	keystore         string
	keystorePassword secretFlag
	credentials      credentials
	realm            string
	compress         bool
	maxRequests      int
	origins          flags.List

	subscriber                   string
	endpoints                    flags.List
	callbackTimeout, callbackRTT flags.Millis
}

// defaultMarathonHTTP is what holds where no flag can say otherwise.
func defaultMarathonHTTP() marathonHTTP {
	timeout := flags.Millis(marathon.DefaultConfig().Callbacks.Timeout)
	return marathonHTTP{
		on: true, httpsPort: marathonHTTPSPort, realm: "Mesosphere", compress: true, callbackTimeout: timeout, callbackRTT: timeout,
	}
}

func (h *marathonHTTP) register(s *flags.Set) {
	s.BoolVar(&h.on, "http", h.on, "serve the API without encryption too; --disable-http: by HTTPS alone")
	s.Var(&h.httpsAddress, "https-address", "the IP `address` to listen on for HTTPS (that of HTTP)")
	s.Var(&h.httpsPort, "https-port", "the `port` for HTTPS, served where --ssl-cert-file is given")
	s.Var(&h.cert, "ssl-cert-file", "the `file` with the certificate for HTTPS and those that lead to its root, in PEM")
	s.Var(&h.key, "ssl-key-file", "the `file` with the key of the certificate, in PEM")
	s.StringVar(&h.keystore, "ssl-keystore-path", "", "a Java key `store`, which is not read: use --ssl-cert-file and --ssl-key-file")
	s.Var(&h.keystorePassword, "ssl-keystore-password", "the `password` of the key store")
	s.Var(&h.credentials, "http-credentials", "the `user:password` that is asked of everybody")
	s.StringVar(&h.realm, "http-realm", h.realm, "the `name` that is shown where a password is asked for")
	s.BoolVar(&h.compress, "http-compression", h.compress, "compress answers for those who take it")
	s.IntVar(&h.maxRequests, "http-max-concurrent-requests", 0, "how `many` requests are answered at a time (0: any number)")
	s.StringVar(&h.subscriber, "event-subscriber", "", "`http_callback` posts events to URLs that subscribe at /v2/eventSubscriptions")
	s.Var(&h.endpoints, "http-endpoints", "`URLs` that events are posted to from the start, comma-separated")
	s.Var(&h.callbackTimeout, "http-event-callback-slow-consumer-timeout", "how long a post of an event may take, in `ms`")
	s.Var(&h.callbackRTT, "http-event-request-timeout", "how long a post of an event may take, in `ms`: the shorter one counts")
	s.Var(&h.origins, "access-control-allow-origin", "the `origins` whose pages may read answers in a browser, comma-separated")
}

// environment takes the settings whose variables have names of their own.
func (h *marathonHTTP) environment(s *flags.Set, environ []string) error {
	for _, kv := range environ {
		variable, value, _ := strings.Cut(kv, "=")
		name, ok := map[string]string{
			"MESOSPHERE_HTTP_CREDENTIALS": "http-credentials", "MESOSPHERE_KEYSTORE_PATH": "ssl-keystore-path",
			"MESOSPHERE_KEYSTORE_PASS": "ssl-keystore-password",
		}[variable]
		if !ok || value == "" {
			continue
		}
		if err := s.Offer(name, value, flags.Source("environment "+variable)); err != nil {
			return usagef("%s: %w", variable, err)
		}
	}
	return nil
}

func (h *marathonHTTP) check() error {
	switch {
	case h.keystore != "":
		return usagef("--ssl-keystore-path: Java key stores are not read; write the certificate and the key as PEM (openssl pkcs12 -in FILE -nodes) and name them by --ssl-cert-file and --ssl-key-file")
	case (h.cert == "") != (h.key == ""):
		return usagef("--ssl-cert-file and --ssl-key-file: both are needed, or none")
	case !h.on && h.cert == "":
		return usagef("--disable-http: without --ssl-cert-file and --ssl-key-file nothing would be served")
	case h.maxRequests < 0:
		return usagef("--http-max-concurrent-requests: %d is negative", h.maxRequests)
	case h.subscriber != "" && h.subscriber != "http_callback":
		return usagef("--event-subscriber: %q is not http_callback", h.subscriber)
	case h.subscriber == "" && len(h.endpoints) > 0:
		return usagef("--http-endpoints: nothing is posted without --event-subscriber=http_callback")
	}
	for _, u := range h.endpoints {
		if err := marathon.CheckCallback(u); err != nil {
			return usagef("--http-endpoints: %w", err)
		}
	}
	return nil
}

func (h *marathonHTTP) callbacks() marathon.Callbacks {
	return marathon.Callbacks{
		On: h.subscriber != "", URLs: h.endpoints, Timeout: min(h.callbackTimeout.Std(), h.callbackRTT.Std()),
	}
}

func (h *marathonHTTP) api() marathonapi.HTTP {
	return marathonapi.HTTP{
		User: h.credentials.user, Password: h.credentials.password, Realm: h.realm, MaxRequests: h.maxRequests,
		NoCompression: !h.compress, Origins: h.origins,
	}
}

// reached is where the API is reached: which listener takes connections, which port others are told, and how it is spoken to.
type reached struct {
	net.Listener
	port, httpsPort int // httpsPort is 0 where HTTPS is not served
	scheme          string
}

// reach binds what the API is served on.
func (r *role) reach(h *marathonHTTP, port int, aside bool) (*reached, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	out := &reached{scheme: "http"}
	if h.on {
		l, port, err := r.listen("HTTP", port, aside)
		if err != nil {
			return nil, err
		}
		out.Listener, out.port = l, port
	}
	if h.cert == "" {
		return out, nil
	}
	pair, err := tls.LoadX509KeyPair(string(h.cert), string(h.key))
	if err != nil {
		return nil, &UsageError{fmt.Errorf("--ssl-cert-file: cannot read the certificate: %w", err)}
	}
	ip := r.place.bind
	if h.httpsAddress != "" {
		ip = string(h.httpsAddress)
	}
	plain, port, err := listen("HTTPS", ip, int(h.httpsPort), false)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() { plain.Close() })
	r.tell("HTTPS", port)
	out.httpsPort = port
	encrypted := tls.NewListener(plain, &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if out.Listener == nil {
		out.Listener, out.port, out.scheme = encrypted, port, "https"
	} else {
		out.Listener = join(out.Listener, encrypted)
	}
	return out, nil
}

// joined is several listeners as one, whose address is that of the first.
type joined struct {
	all  []net.Listener
	conn chan net.Conn
	fail chan error // one value for each listener; buffered
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup // the goroutines that accept
	err  error          // of closing; set within once
}

// join makes one listener of several. Closing it closes them all, and waits for the goroutines that it has.
func join(all ...net.Listener) net.Listener {
	j := &joined{all: all, conn: make(chan net.Conn), fail: make(chan error, len(all)), done: make(chan struct{})}
	for _, l := range all {
		j.wg.Go(func() { j.accept(l) })
	}
	return j
}

func (j *joined) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			j.fail <- err
			return
		}
		select {
		case j.conn <- conn:
		case <-j.done:
			conn.Close()
			return
		}
	}
}

// Accept implements net.Listener. When one listener fails, the whole does.
func (j *joined) Accept() (net.Conn, error) {
	select {
	case conn := <-j.conn:
		return conn, nil
	case err := <-j.fail:
		return nil, err
	case <-j.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (j *joined) Close() error {
	j.once.Do(func() {
		close(j.done)
		for _, l := range j.all {
			j.err = errors.Join(j.err, l.Close())
		}
		j.wg.Wait()
	})
	return j.err
}

// Addr implements net.Listener.
func (j *joined) Addr() net.Addr { return j.all[0].Addr() }

// credentials are a user's name and password.
type credentials struct{ user, password string }

// String shows that there are some.
func (c *credentials) String() string {
	if c.user == "" {
		return ""
	}
	return "***"
}

// Set reads "user:password"; the password may have colons in it.
func (c *credentials) Set(text string) error {
	user, password, ok := strings.Cut(text, ":")
	if !ok || user == "" {
		return errors.New("write user:password")
	}
	c.user, c.password = user, password
	return nil
}

// Secret keeps them out of errors.
func (c *credentials) Secret() bool { return true }
