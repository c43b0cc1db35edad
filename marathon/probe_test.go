package marathon

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"starling/marathon/app"
	"starling/marathon/scheduler"
)

// probeOf is a task whose port with the index 1 is that of the server.
func probeOf(t *testing.T, server string) scheduler.Probe {
	t.Helper()
	_, text, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimPrefix(server, "http://"), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return scheduler.Probe{
		Instance: &scheduler.Instance{Host: "127.0.0.1", Ports: []int{1, port}},
		App:      &app.App{PortDefinitions: []app.PortDefinition{{Name: "none"}, {Name: "http"}}},
	}
}

func newTestProber(t *testing.T) *prober {
	c := DefaultConfig()
	c.HealthChecks = 2
	return newProber(t.Context(), &Marathon{cfg: c})
}

func TestHealthCheckReadsAnswers(t *testing.T) {
	hang := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.URL.RawQuery != "" && r.URL.RawQuery != "deep=1" {
				w.WriteHeader(400)
			}
		case "/moved":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/ill":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/hang":
			<-hang
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	defer close(hang)
	gone := httptest.NewServer(handler)
	gone.Close()
	index := 1
	for _, tc := range []struct {
		name, server string
		check        app.HealthCheck
		alive        bool
		cause        string
	}{
		{"fine", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "/ok"}, true, ""},
		{"fine with a query", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "/ok?deep=1"}, true, ""},
		{"without leading slash", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "ok"}, true, ""},
		{"redirect is not followed and fine", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "/moved"}, true, ""},
		{"certificate is not looked at", secure.URL, app.HealthCheck{Protocol: app.HTTPS, Path: "/ok"}, true, ""},
		{"connects", plain.URL, app.HealthCheck{Protocol: app.TCP}, true, ""},
		{"ill", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "/ill"}, false, "503 Service Unavailable"},
		{"no such path", plain.URL, app.HealthCheck{Protocol: app.HTTP}, false, "404 Not Found"},
		{"hangs", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "/hang"}, false, "no answer in time"},
		{"nobody there", gone.URL, app.HealthCheck{Protocol: app.HTTP}, false, "connection refused"},
		{"nobody to connect to", gone.URL, app.HealthCheck{Protocol: app.TCP}, false, "connection refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.check.TimeoutSeconds, tc.check.PortIndex = 1, &index
			alive, known, cause := newTestProber(t).check(context.Background(), probeOf(t, tc.server), tc.check)
			if alive != tc.alive || !known || !strings.Contains(cause, tc.cause) {
				t.Errorf("alive %v, known %v, cause %q; want %v and %q", alive, known, cause, tc.alive, tc.cause)
			}
		})
	}
	alive, _, cause := newTestProber(t).check(context.Background(), probeOf(t, plain.URL), app.HealthCheck{Protocol: app.HTTP, PortIndex: new(7)})
	if alive || !strings.Contains(cause, "no port with the index 7") {
		t.Errorf("a port that is not there: %v, %q", alive, cause)
	}
}

func TestReadinessKeepsTheAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/weather")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte("almost"))
	}))
	defer server.Close()
	check := app.ReadinessCheck{Name: "r", Protocol: "HTTP", Path: "/", PortName: "http", TimeoutSeconds: 5, HTTPStatusCodesForReady: []int{200}}
	ready, response := newTestProber(t).ask(context.Background(), probeOf(t, server.URL), check)
	if want := (scheduler.Response{Status: 418, ContentType: "text/weather", Body: "almost"}); ready || response != want {
		t.Errorf("got %v %+v, want %+v", ready, response, want)
	}
	check.HTTPStatusCodesForReady = []int{418}
	if ready, _ := newTestProber(t).ask(context.Background(), probeOf(t, server.URL), check); !ready {
		t.Error("not ready with a status that says so")
	}
	check.PortName = "nothing"
	if ready, response := newTestProber(t).ask(context.Background(), probeOf(t, server.URL), check); ready || response.Status != 504 {
		t.Errorf("port that is not there: %v %+v", ready, response)
	}
}

func TestAddressOfATask(t *testing.T) {
	hostPort := 0
	i := &scheduler.Instance{Host: "h", Ports: []int{31000, 31001}, Addresses: []scheduler.Address{{IP: "10.1.0.7", Protocol: "IPv4"}}}
	container := &app.Container{PortMappings: []app.PortMapping{{ContainerPort: 80}, {ContainerPort: 0, HostPort: &hostPort}, {ContainerPort: 443, HostPort: &hostPort}}}
	for _, tc := range []struct {
		name  string
		app   *app.App
		fixed *int
		index int
		want  string
	}{
		{"host mode", &app.App{PortDefinitions: []app.PortDefinition{{}, {}}}, nil, 1, "h:31001"},
		{"fixed port", &app.App{}, new(8080), 0, "h:8080"},
		{"own address", &app.App{Networks: []app.Network{{Mode: app.ContainerNetwork}}, Container: container}, nil, 0, "10.1.0.7:80"},
		{"own address and fixed port", &app.App{Networks: []app.Network{{Mode: app.ContainerNetwork}}, Container: container}, new(81), 0, "10.1.0.7:81"},
		{"bridge", &app.App{Networks: []app.Network{{Mode: app.BridgeNetwork}}, Container: container}, nil, 2, "h:31001"},
		{"bridge without host port", &app.App{Networks: []app.Network{{Mode: app.BridgeNetwork}}, Container: container}, nil, 0, ""},
		{"container port that is the host port", &app.App{Networks: []app.Network{{Mode: app.ContainerNetwork}}, Container: container}, nil, 1, "h:31000"},
	} {
		got, err := address(scheduler.Probe{Instance: i, App: tc.app}, tc.fixed, &tc.index)
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s: %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
}
