package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/agent/testenv"
)

// upgradeConfig has HAProxy take its servers from DNS. It tries nothing twice, so that no fault is hidden.
const upgradeConfig = `
global
	maxconn 500
defaults
	mode http
	retries 0
	timeout connect 2s
	timeout client 10s
	timeout server 10s
resolvers starling
	nameserver node tcp@%[1]s
	accepted_payload_size 8192
	timeout resolve 500ms
	timeout retry 500ms
	hold valid 500ms
	hold obsolete 0s
frontend front
	bind %[2]s
	default_backend web
backend web
	balance roundrobin
	%[3]s
	server-template web 20 _http._web._tcp.marathon.mesos resolvers starling resolve-prefer ipv4 init-addr none %[4]s
`

// upgradeApp is what README tells to set for an upgrade that nobody notices.
const upgradeApp = `{
	"id": "/web", "cpus": 0.05, "mem": 32, "instances": 3, "backoffSeconds": 1,
	"portDefinitions": [{"port": 0, "name": "http"}],
	"healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0, "delaySeconds": 0, "intervalSeconds": 1, "timeoutSeconds": 1, "gracePeriodSeconds": 30}],
	"readinessChecks": [{"portName": "http", "path": "/health", "intervalSeconds": 2, "timeoutSeconds": 1}],
	"upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.5},
	"taskKillGracePeriodSeconds": 10
}`

// load asks one address without a pause until it is stopped, and counts the answers.
type load struct {
	mu      sync.Mutex
	answers map[string]int
	failed  []string
	stop    context.CancelFunc
	done    sync.WaitGroup
}

func (h *Host) load(t *testing.T, url string, workers int) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{answers: map[string]int{}, stop: cancel}
	transport := &http.Transport{DialContext: h.Dial, MaxIdleConnsPerHost: workers}
	client := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	for range workers {
		l.done.Go(func() {
			for ctx.Err() == nil {
				answer, err := once(ctx, client, url)
				if ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				if err != nil {
					l.failed = append(l.failed, fmt.Sprintf("%s %v", time.Now().Format("15:04:05.000"), err))
				} else {
					l.answers[answer]++
				}
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { l.end(); transport.CloseIdleConnections() })
	return l
}

func once(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %.60s", res.StatusCode, body)
	}
	return string(body), err
}

// end stops it and waits for it.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// counts are the answers so far.
func (l *load) counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers)
}

// Under load through HAProxy, which takes its servers from DNS, an app is upgraded, scaled up and down, restarted and upgraded
// again, and no request fails.
func TestUpgradeBehindHAProxyFailsNoRequest(t *testing.T) {
	t.Parallel()
	testenv.NeedProgram(t, "haproxy")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	drain, patience := "3s", "" // as README tells
	if !*fullRows {
		// A name takes longer to go where the machine is busy with other tests, and so does an answer to a check, of which one that is
		// late takes a server out.
		drain, patience = "6s", "\n    timeout check 2s"
	}
	for _, way := range []struct {
		name          string
		marathon      []string
		option, check string // of HAProxy
	}{
		{"by checks of its own", nil, "option httpchk GET /health" + patience, "check inter 500ms fall 1 rise 1"},
		{"by DNS alone", []string{"--enable-features", "task_killing"}, "", ""},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			f, c := newFlockWithTasks(t, 2, way.marathon, "")
			Agree(t, 20*time.Second, f.Agents...)
			client := f.Hosts[1]
			put := func(method, path, body string, more map[string]any) {
				t.Helper()
				def := map[string]any{}
				if err := json.Unmarshal([]byte(body), &def); err != nil {
					t.Fatal(err)
				}
				maps.Copy(def, more)
				encoded, err := json.Marshal(def)
				if err == nil {
					_, _, err = c.request(method, c.Marathon+path, string(encoded))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			version := func(v string) map[string]any {
				return map[string]any{"cmd": "exec " + self, "env": map[string]string{servantVariable: drain, "VERSION": v}}
			}
			put("POST", "/v2/apps", upgradeApp, version("one"))
			c.Running("/web", 3)

			front := client.at(18080)
			file := filepath.Join(t.TempDir(), "haproxy.cfg")
			if err := os.WriteFile(file, fmt.Appendf(nil, upgradeConfig, f.Agents[0].Host.at(53), front, way.option, way.check), 0o644); err != nil {
				t.Fatal(err)
			}
			client.daemon("haproxy", "-db", "-f", file)
			Eventually(t, 20*time.Second, "HAProxy answers", func() error {
				_, _, err := c.request("GET", "http://"+front+"/", "")
				return err
			})
			l := client.load(t, "http://"+front+"/", 8)
			answered := func(v string) {
				t.Helper()
				before := l.counts()[v]
				Eventually(t, 30*time.Second, "version "+v+" answers", func() error {
					if n := l.counts()[v]; n < before+50 {
						return fmt.Errorf("%d answers", n)
					}
					return nil
				})
			}
			answered("one")
			put("PUT", "/v2/apps/web", `{}`, version("two"))
			c.Running("/web", 3)
			answered("two")
			put("PUT", "/v2/apps/web", `{"instances":5}`, nil)
			c.Running("/web", 5)
			put("PUT", "/v2/apps/web", `{"instances":2}`, nil)
			c.Running("/web", 2)
			put("POST", "/v2/apps/web/restart", `{}`, nil)
			c.Running("/web", 2)
			answered("two")
			l.end()
			total := 0
			for _, n := range l.answers {
				total += n
			}
			t.Logf("%d requests were answered (%v), %d failed", total, l.answers, len(l.failed))
			if len(l.failed) > 0 {
				t.Errorf("%d requests failed:\n%s", len(l.failed), strings.Join(l.failed[:min(20, len(l.failed))], "\n"))
			}
		})
	}
}
