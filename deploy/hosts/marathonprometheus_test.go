package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"starling/agent/testenv"
)

// prometheusConfig finds what to scrape by asking Marathon for apps, and scrapes Marathon's own numbers too.
const prometheusConfig = `
global:
  scrape_interval: 1s
scrape_configs:
- job_name: tasks
  marathon_sd_configs:
  - servers: [%[1]s]
    refresh_interval: 1s
%[3]s
  relabel_configs:
  - source_labels: [__meta_marathon_app]
    target_label: app
- job_name: marathon
  metrics_path: /metrics/prometheus
  static_configs:
  - targets: [%[2]q]
%[4]s
`

// watcher is a Prometheus.
type watcher struct {
	*guest
	url string
}

// target is something that Prometheus scrapes.
type target struct {
	DiscoveredLabels, Labels map[string]string
	Health, LastError        string
}

// watch starts Debian's Prometheus beside the cluster.
func (g *guest) watch(t *testing.T) *watcher {
	t.Helper()
	dir := t.TempDir()
	var discovery, scrape string
	if g.user != "" {
		auth := fmt.Sprintf("basic_auth: {username: %q, password: %q}", g.user, g.password)
		discovery, scrape = "    "+auth, "  "+auth
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, prometheusConfig, g.marathon, g.at(8080), discovery, scrape), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &watcher{g, "http://" + g.at(9090)}
	g.daemon("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+g.at(9090))
	return w
}

// ask asks it for something.
func (w *watcher) ask(path string, into any) error {
	_, body, err := w.request("GET", w.url+path, "")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), &struct{ Data any }{into})
}

// targets waits until Prometheus scrapes the tasks of these apps and nothing else, each at its place and with success.
func (w *watcher) targets(t *testing.T, want ...[]Task) map[string]target {
	t.Helper()
	began := time.Now()
	var places []string
	for _, tasks := range want {
		for _, task := range tasks {
			for i, port := range task.Ports {
				places = append(places, fmt.Sprintf("%s %s %d", task.ID, net.JoinHostPort(task.Host, fmt.Sprint(port)), i))
			}
		}
	}
	found := map[string]target{}
	Eventually(t, 30*time.Second, fmt.Sprintf("Prometheus has %d targets", len(places)), func() error {
		var v struct{ ActiveTargets []target }
		if err := w.ask("/api/v1/targets?state=active", &v); err != nil {
			return err
		}
		clear(found)
		for _, one := range v.ActiveTargets {
			if one.Labels["job"] != "tasks" {
				continue
			}
			l := one.DiscoveredLabels
			if one.Health != "up" {
				return fmt.Errorf("%s is %s: %s", l["__address__"], one.Health, one.LastError)
			}
			found[fmt.Sprintf("%s %s %s", l["__meta_marathon_task"], l["__address__"], l["__meta_marathon_port_index"])] = one
		}
		return same(slices.Collect(maps.Keys(found)), places)
	})
	t.Logf("Prometheus has %d targets after %v", len(places), time.Since(began).Round(100*time.Millisecond))
	return found
}

// value waits until a query has one answer, and it is that.
func (w *watcher) value(t *testing.T, query, want string) {
	t.Helper()
	Eventually(t, 20*time.Second, query+" is "+want, func() error {
		var v struct{ Result []struct{ Value [2]any } }
		if err := w.ask("/api/v1/query?query="+url.QueryEscape(query), &v); err != nil {
			return err
		}
		if len(v.Result) != 1 || v.Result[0].Value[1] != want {
			return fmt.Errorf("it is %v", v.Result)
		}
		return nil
	})
}

// Debian's Prometheus scrapes just the tasks that there are, with the labels that their apps and ports have, and understands
// Marathon's own numbers.
func TestPrometheusFollowsMarathon(t *testing.T) {
	t.Parallel()
	testenv.NeedProgram(t, "prometheus")
	withAndWithoutPassword(t, func(t *testing.T, g *guest) {
		w := g.watch(t)
		g.ProbeApp("/shop/web", 2, `{"labels":{"team":"a","Monitored-By":"us"},"portDefinitions":[{"port":0,"name":"http","labels":{"metrics":"/m"}}]}`)
		g.ProbeApp("/fixed", 1, `{"portDefinitions":[{"port":31907,"name":"http"}],"requirePorts":true}`)
		web, fixed := g.Running("/shop/web", 2), g.Running("/fixed", 1)
		for _, one := range w.targets(t, web, fixed) {
			l := one.DiscoveredLabels
			want := map[string]string{"__meta_marathon_app": "/fixed", "__address__": net.JoinHostPort(fixed[0].Host, "31907"), "__meta_marathon_image": ""}
			if one.Labels["app"] == "/shop/web" {
				want = map[string]string{
					"__meta_marathon_app": "/shop/web", "__meta_marathon_app_label_team": "a", "__meta_marathon_app_label_Monitored_By": "us",
					"__meta_marathon_port_definition_label_metrics": "/m", "__meta_marathon_port_index": "0",
				}
			}
			for name, value := range want {
				if l[name] != value {
					t.Errorf("%s of %s is %q, want %q", name, l["__meta_marathon_task"], l[name], value)
				}
			}
		}
		w.value(t, `count(probe_pid{app="/shop/web"})`, "2")
		w.value(t, `up{job="marathon"}`, "1")
		w.value(t, `marathon_apps_active_gauge`, "2")
		w.value(t, `marathon_instances_running_gauge`, "3")

		g.scaleTo("/shop/web", 5)
		web = g.Running("/shop/web", 5)
		w.targets(t, web, fixed)
		// One that dies goes, and the one in its place comes.
		dead := web[0].ID
		killProcess(t, g.Answers(web[:1])[dead])
		Eventually(t, 30*time.Second, "the task is replaced", func() error {
			a, err := g.App("/shop/web")
			if err == nil && slices.ContainsFunc(a.Tasks, func(o Task) bool { return o.ID == dead }) {
				err = errors.New("it is there")
			}
			return err
		})
		w.targets(t, g.Running("/shop/web", 5), fixed)
		g.scaleTo("/shop/web", 1)
		w.targets(t, g.Running("/shop/web", 1), fixed)
		if _, _, err := g.request("DELETE", g.Cluster.Marathon+"/v2/apps/shop/web", ""); err != nil {
			t.Fatal(err)
		}
		w.targets(t, fixed)
	})
}
