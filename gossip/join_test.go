package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starling/gossip/memnet"
)

// A name of seeds may have many addresses of both families, most of them of nobody, and no address at all for a long time.
func TestOneLiveAddressOfASeedSuffices(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		var known atomic.Bool
		f.resolve = func(_ context.Context, host string) ([]net.IPAddr, error) {
			if host != "seeds.example" || !known.Load() {
				return nil, errors.New("no such host")
			}
			ips := []net.IPAddr{{IP: net.ParseIP("fd00::1")}, {IP: net.ParseIP("fe80::1"), Zone: "eth0"}}
			for i := range 30 {
				ips = append(ips, net.IPAddr{IP: net.ParseIP(fmt.Sprint("10.8.0.", i+1))})
			}
			return append(ips, net.IPAddr{IP: net.ParseIP(memnet.Addr(0))}), nil
		}
		named := func(c *Config) { c.Join = []string{"other.example", "seeds.example"} }
		f.start(0, func(c *Config) { c.Join = nil })
		f.start(1, named)
		time.Sleep(2 * time.Hour)
		if n := len(f.nodes[1].Members()); n != 1 {
			t.Fatalf("%d members before the name had an address", n)
		}
		known.Store(true)
		took := f.within(2*time.Minute, "joined", func() bool { return whole(f.nodes) })
		t.Logf("joined %v after the name had addresses, one of 33 of which is alive", took)
	})
}

// Who finds nobody says so in one line, with all that it tries; who was told of nobody is content.
func TestWhoIsAloneSaysWhatItTries(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		var said strings.Builder
		log := func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&said, nil)) }
		f.resolve = func(context.Context, string) ([]net.IPAddr, error) { return nil, errors.New("no such host") }
		f.start(1, log, func(c *Config) { c.Join = []string{"10.8.0.1", "seed.example:77"} })
		time.Sleep(5 * time.Minute)
		f.nodes[1].stop()
		<-f.nodes[1].result
		f.nodes[1].result <- nil
		lines := strings.Count(said.String(), "nobody found yet")
		for _, want := range []string{"10.8.0.1:7946", "seed.example:77", "seeds=2", "remembered=0", "mdns=off", "addr=" + memnet.Addr(1)} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("nothing about %s in:\n%s", want, said.String())
			}
		}
		if lines < 3 || lines > 6 {
			t.Errorf("said so %d times in five minutes, want about one a minute", lines)
		}
		said.Reset()
		f.start(1, log, func(c *Config) { c.Join = nil })
		time.Sleep(5 * time.Minute)
		f.nodes[1].stop()
		<-f.nodes[1].result
		f.nodes[1].result <- nil
		if got := said.String(); strings.Count(got, "alone in the mesh") != 1 || strings.Contains(got, "level=WARN") {
			t.Errorf("who was told of nobody said:\n%s", got)
		}
	})
}
