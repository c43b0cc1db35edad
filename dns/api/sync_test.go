package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"starling/dns"
	"starling/dns/config"
	"starling/dns/records"
	"starling/gossip/record"
)

// Before the mesh has been heard nothing is said not to be there: what is known is told, and 503 of the rest.
func TestBeforeTheMeshIsHeard(t *testing.T) {
	synced := make(chan struct{})
	s, err := dns.New(dns.Config{
		Source: record.NewMap("reader", 1), Zone: records.DefaultConfig(), Synced: synced, SyncPatience: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	fillWith(exampleA)(s.Zone())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- New(s, Config{Settings: config.Default()}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	base := "http://" + l.Addr().String()
	for path, want := range map[string]int{
		"/health": 503, "/ready": 503, "/v1/hosts/nobody.mesos": 503, "/v1/services/_nobody._tcp.mesos": 503, "/v1/axfr": 503, "/v1/enumerate": 503,
		"/v1/version": 200, "/v1/config": 200, "/v1/hosts/web.marathon.mesos": 200, "/metrics": 404,
	} {
		res := get(t, base+path, nil)
		if res.status != want || want == 503 && res.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %d %s %v, want %d", path, res.status, res.body, res.header, want)
		}
	}
	close(synced)
	for deadline := time.Now().Add(10 * time.Second); get(t, base+"/health", nil).status != http.StatusOK; {
		if time.Now().After(deadline) {
			t.Fatal("not healthy though the mesh has been heard")
		}
	}
	if res := get(t, base+"/v1/hosts/nobody.mesos", nil); res.status != http.StatusOK {
		t.Errorf("a name that is not there: %d", res.status)
	}
}
