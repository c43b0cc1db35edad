package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"starling/dns"
	"starling/dns/records"
	"starling/gossip/record"
)

func serve(t *testing.T) string {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := dns.New(dns.Config{
		Source: record.NewMap("reader", 1), Zone: records.DefaultConfig(), UDP: udp, TCP: listen(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Zone().Replace("web", records.Task{
		ID: "web.id-0", Name: "web", Framework: "marathon", AgentID: "x-S0", Agent: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
		HostPorts: []uint16{31000},
	}.Records("mesos"))
	ctx, cancel := context.WithCancel(context.Background())
	l := listen()
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- New(s, Config{Version: "v1"}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return "http://" + l.Addr().String()
}

func TestPages(t *testing.T) {
	base := serve(t)
	for _, tc := range []struct {
		path   string
		status int
		want   string
	}{
		{"/v1/version", 200, `"Service": "Mesos-DNS"`},
		{"/v1/hosts/web.marathon.mesos", 200, "[\n {\n  \"host\": \"web.marathon.mesos.\",\n  \"ip\": \"10.1.0.1\"\n }\n]\n"},
		{"/v1/hosts/WEB.*.marathon.mesos.", 200, `"ip": "10.1.0.1"`},
		{"/v1/hosts/nobody.mesos", 200, "[\n {\n  \"host\": \"\",\n  \"ip\": \"\"\n }\n]\n"},
		{"/v1/services/_web._tcp.marathon.mesos", 200, `"port": "31000"`},
		{"/v1/services/_web._tcp.marathon.mesos", 200, `"service": "_web._tcp.marathon.mesos"`},
		{"/v1/services/_nobody._tcp.marathon.mesos", 200, `"port": ""`},
		{"/v1/axfr", 200, `"_web._tcp.marathon.mesos.": [`},
		{"/v1/nothing", 404, "404"},
		{"/health", 200, ""},
	} {
		res, err := http.Get(base + tc.path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != tc.status || !strings.Contains(string(body), tc.want) {
			t.Errorf("%s: %d %s; want %d with %s", tc.path, res.StatusCode, body, tc.status, tc.want)
		}
		if strings.HasPrefix(tc.path, "/v1/") && tc.status == 200 && (!json.Valid(body) || res.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%s: %q is not served as JSON", tc.path, res.Header.Get("Content-Type"))
		}
	}
	res, err := http.Post(base+"/v1/version", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want 405", res.StatusCode)
	}
}
