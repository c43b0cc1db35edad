package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"starling/dns/config"
	"starling/dns/records"
)

// many are the tasks of a large cluster.
func many(n int) []records.Task {
	var all []records.Task
	for i := range n {
		all = append(all, records.Task{
			ID: fmt.Sprintf("app-%d.%d", i%500, i), Name: fmt.Sprintf("app-%d", i%500), Framework: "marathon", AgentID: fmt.Sprintf("x-S%d", i%100),
			Agent: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 100)})}, HostPorts: []uint16{uint16(20000 + i)},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i / 250), byte(i % 250)})},
		})
	}
	return all
}

// Clients that ask for everything and read nothing neither hold up the zone nor each other, cost little, and cannot take
// all there is.
func TestSlowReaders(t *testing.T) {
	var zone *records.Zone
	base := serve(t, config.Default(), func(z *records.Zone) {
		zone = z
		fillWith(many(10_000)...)(z)
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	addr := strings.TrimPrefix(base, "http://")
	var slow []net.Conn
	for i := range maxLists + 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "GET /v1/axfr HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		status, err := bufio.NewReaderSize(c, 64).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{true: "200", false: "503"}[i < maxLists]; !strings.Contains(status, want) {
			t.Errorf("reader %d: %q, want %s", i, status, want)
		}
		slow = append(slow, c)
	}
	// They write until the system takes no more; then what they hold stays.
	for deadline := time.Now().Add(20 * time.Second); ; {
		runtime.GC()
		runtime.ReadMemStats(&after)
		grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		if grown < maxLists<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d slow readers take %d kB", maxLists, grown>>10)
		}
	}
	// The zone changes, and is asked, all the same.
	changed := many(1)[0]
	changed.ID, changed.Name = "new.1", "new"
	fillWith(changed)(zone)
	if res := get(t, base+"/v1/hosts/new.marathon.mesos", nil); res.status != http.StatusOK || !strings.Contains(res.body, "10.200.0.0") {
		t.Errorf("beside slow readers: %d %s", res.status, res.body)
	}
	// Room comes back when they have gone, and a list is whole that is read in time.
	for _, c := range slow {
		c.Close()
	}
	for deadline := time.Now().Add(15 * time.Second); ; {
		res := get(t, base+"/v1/axfr", nil)
		if res.status == http.StatusOK {
			if strings.Count(res.body, "\n") < 10_000*4*3 || !strings.HasSuffix(res.body, "\n }") {
				t.Errorf("a list of %d lines", strings.Count(res.body, "\n"))
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d: there is no room for lists any more", res.status)
		}
	}
}

func BenchmarkLists(b *testing.B) {
	z := records.NewZone(records.DefaultConfig(), 1)
	fillWith(many(10_000)...)(z)
	b.ReportAllocs()
	for b.Loop() {
		p := &printer{w: bufio.NewWriter(nowhere{})}
		p.zone(z, 60)
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
