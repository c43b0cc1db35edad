package node

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/cmd/internal/flags"
)

// readMarathon reads the settings of Marathon as it does itself.
func readMarathon(args, environ []string) (*flags.Set, *marathonFlags, error) {
	set := flags.New("starling marathon", "STARLING_", "MARATHON_")
	m := new(marathonFlags)
	m.register(set)
	m.http.register(set)
	set.Ignore(ignoredByMarathon...)
	if err := set.Parse(args, environ); err != nil {
		return set, m, err
	}
	return set, m, m.http.environment(set, environ)
}

func TestNoFlagIsBothHonouredAndIgnored(t *testing.T) {
	set, _, err := readMarathon(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range ignoredByMarathon {
		if set.Lookup(strings.ReplaceAll(name, "_", "-")) != nil {
			t.Errorf("%s changes something, and is said to change nothing", name)
		}
	}
}

func TestMarathonHTTPFlags(t *testing.T) {
	_, m, err := readMarathon(strings.Fields(`--http_realm=here --disable_http_compression --http_max_concurrent_requests=7
		--access_control_allow_origin=http://a,http://b --event_subscriber http_callback --http_endpoints http://c,http://d
		--http_event_request_timeout=700`), []string{"MESOSPHERE_HTTP_CREDENTIALS=me:a:b"})
	if err != nil {
		t.Fatal(err)
	}
	got := m.http.api()
	if got.User != "me" || got.Password != "a:b" || got.Realm != "here" || !got.NoCompression || got.MaxRequests != 7 || len(got.Origins) != 2 {
		t.Errorf("settings %+v", got)
	}
	if cb := m.http.callbacks(); !cb.On || len(cb.URLs) != 2 || cb.Timeout != 700*time.Millisecond || m.http.callbacks().URLs[1] != "http://d" {
		t.Errorf("callbacks %+v", cb)
	}
	if _, m, _ := readMarathon(nil, nil); m.http.callbacks().On {
		t.Error("callbacks are on without the flag")
	}
	_, m, err = readMarathon([]string{"--http_credentials=you:c"}, []string{"MESOSPHERE_HTTP_CREDENTIALS=me:a"})
	if err != nil || m.http.credentials.user != "you" {
		t.Errorf("the command line counts more: %v, %+v", err, m.http.credentials)
	}
	set, _, err := readMarathon([]string{"--http_credentials=hush"}, nil)
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("credentials without a colon: %v", err)
	}
	_ = set
	for _, tc := range []struct{ args, want string }{
		{"--ssl_keystore_path=/x.jks", "write the certificate and the key as PEM"},
		{"--ssl_cert_file=/x", "both are needed"},
		{"--disable_http", "nothing would be served"},
		{"--event_subscriber=kafka", "is not http_callback"},
		{"--http_endpoints=http://h", "without --event-subscriber"},
		{"--event_subscriber=http_callback --http_endpoints=h", "not the URL of an HTTP server"},
		{"--http_max_concurrent_requests=-1", "is negative"},
	} {
		_, m, err := readMarathon(strings.Fields(tc.args), nil)
		if err == nil {
			err = m.http.check()
		}
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.args, err, tc.want)
		}
	}
}

func TestMarathonMetricsFlags(t *testing.T) {
	_, m, err := readMarathon(strings.Fields(`--metrics_statsd --metrics_statsd_host=::1 --metrics_statsd_port=8125
		--metrics_statsd_transmission_interval_ms=2000 --metrics_datadog --metrics_datadog_protocol=api --metrics_datadog_api_key=k
		--reporter_graphite=tcp://g:2003?prefix=p&interval=3 --metrics_name_prefix=site`), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := m.metrics.pushers("here")
	if err != nil || len(all) != 3 {
		t.Fatalf("%d pushers, %v", len(all), err)
	}
	for i, want := range []struct {
		name  string
		every time.Duration
	}{
		{"StatsD at [::1]:8125", 2 * time.Second},
		{"https://api.datadoghq.com:443/api/v1/series", 10 * time.Second},
		{"Graphite at g:2003", 3 * time.Second},
	} {
		if all[i].Name != want.name || all[i].Interval != want.every {
			t.Errorf("pusher %d: %s every %s, want %s every %s", i, all[i].Name, all[i].Interval, want.name, want.every)
		}
	}
	for _, args := range []string{
		"--metrics_statsd", "--metrics_datadog", "--metrics_datadog --metrics_datadog_protocol=tcp",
		"--metrics_datadog --metrics_datadog_protocol=api", "--reporter_graphite=udp://g:1", "--reporter_graphite=tcp://g",
		"--reporter_graphite=tcp://g:1?interval=0",
		"--metrics_statsd --metrics_statsd_host=h --metrics_statsd_port=1 --metrics_statsd_transmission_interval_ms=0",
	} {
		_, m, err := readMarathon(strings.Fields(args), nil)
		if err == nil {
			_, err = m.metrics.pushers("here")
		}
		if err == nil {
			t.Errorf("%s is taken", args)
		}
	}
}

// certificate writes a certificate for 127.0.0.1, with its key, and returns the pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key, pool = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return cert, key, pool
}

// The API is reached over HTTPS, beside HTTP and alone, by clients who check the certificate.
func TestMarathonHTTPS(t *testing.T) {
	cert, key, pool := certificate(t)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
	}}
	for _, both := range []bool{true, false} {
		args := []string{
			"--ip=127.0.0.1", "--hostname=127.0.0.1", "--work-dir=" + t.TempDir(), "--master=127.0.0.1:1", "--http-port=0", "--https-port=0",
			"--ssl-cert-file=" + cert, "--ssl-key-file=" + key, "--log-level=error", "--http-credentials=me:secret",
		}
		if !both {
			args = append(args, "--disable-http")
		}
		addresses := startMarathon(t, args)
		if len(addresses) != map[bool]int{true: 2, false: 1}[both] {
			t.Fatalf("reached at %v", addresses)
		}
		for _, url := range addresses {
			req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v2/info", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("me", "secret")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if leader := resp.Header.Get("X-Marathon-Leader"); err != nil || resp.StatusCode != 200 || leader != addresses[0] {
				t.Errorf("%s: %s, leader %q, %v: %s", url, resp.Status, leader, err, body)
			}
			if strings.Contains(string(body), "secret") {
				t.Errorf("%s tells the password: %s", url, body)
			}
		}
	}
}

// startMarathon runs Marathon until the end of the test, and returns the URLs of its ready line.
func startMarathon(t *testing.T, args []string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := Marathon(ctx, Streams{Out: in, Err: t.Output()}, args, nil)
		in.CloseWithError(io.EOF)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		out.Close()
		if err := <-ended; err != nil {
			t.Errorf("marathon ended with %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("no ready line: %v", err)
	}
	var urls []string
	for part := range strings.SplitSeq(strings.TrimSpace(strings.TrimPrefix(line, "marathon is ready: ")), ", ") {
		scheme, address, _ := strings.Cut(part, " ")
		urls = append(urls, strings.ToLower(scheme)+"://"+address)
	}
	return urls
}
