package marathon

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
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
	gone := "http://" + mastertest.NobodyAt(t).String()
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
		{"hangs", plain.URL, app.HealthCheck{Protocol: app.HTTP, Path: "/hang", TimeoutSeconds: 1}, false, "no answer in time"},
		{"nobody there", gone, app.HealthCheck{Protocol: app.HTTP}, false, "connection refused"},
		{"nobody to connect to", gone, app.HealthCheck{Protocol: app.TCP}, false, "connection refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.check.TimeoutSeconds, tc.check.PortIndex = cmp.Or(tc.check.TimeoutSeconds, 60), &index
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

// TestHealthCheckThatOnlyAnnouncesAnAnswer has servers that send statuses of the kind 1xx, which announce another answer.
func TestHealthCheckThatOnlyAnnouncesAnAnswer(t *testing.T) {
	for _, tc := range []struct {
		name, answer       string
		ignore             bool
		alive, known, says bool
	}{
		{"and never gives it", "HTTP/1.1 102 Processing\r\n\r\n", false, false, true, true},
		{"and never gives it, which is ignored", "HTTP/1.1 102 Processing\r\n\r\n", true, false, false, true},
		{"and gives it", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", false, true, true, false},
		{"and gives a bad one", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", true, false, true, false},
		{"for another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", false, false, true, true},
		{"for another protocol, which is ignored", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", true, false, false, false},
		{"not even", "", true, false, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = conn.Write([]byte(tc.answer))
				}
			}()
			alive, known, cause := newTestProber(t).check(context.Background(), probeOf(t, "http://"+ln.Addr().String()),
				app.HealthCheck{Protocol: app.HTTP, PortIndex: new(1), TimeoutSeconds: 60, IgnoreHTTP1xx: tc.ignore})
			if alive != tc.alive || known != tc.known || tc.says != strings.HasPrefix(cause, "10") {
				t.Errorf("alive %v, known %v, cause %q; want %v and %v", alive, known, cause, tc.alive, tc.known)
			}
			<-served
		})
	}
}

func TestReadinessKeepsTheAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/weather")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte("almost"))
	}))
	defer server.Close()
	check := app.ReadinessCheck{Name: "r", Protocol: "HTTP", Path: "/", PortName: "http", TimeoutSeconds: 60, HTTPStatusCodesForReady: []int{200}}
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

// Requests that wait long for their answers hold up no others, up to a bound; and none holds anything after its end.
func TestLateAnswersHoldUpNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestProber(t)
		begun := time.Now()
		var leave []func()
		for range 2 + 2*lateProbes {
			leave = append(leave, p.slot(t.Context()))
		}
		if took, want := time.Since(begun), lateProbes*lateProbe; took != want {
			t.Errorf("%d requests that are not answered began within %v, want %v", len(leave), took, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if p.slot(ctx) != nil {
			t.Errorf("one more than may be late began")
		}
		for _, l := range leave {
			l()
		}
		if len(p.slots)+len(p.late) > 0 {
			t.Errorf("%d and %d are held after the end of all", len(p.slots), len(p.late))
		}
	})
}
