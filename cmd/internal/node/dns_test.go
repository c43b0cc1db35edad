package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"starling/dns"
)

// A node that is for DNS alone says loudly where it answers, if that is not where it is asked.
func TestADNSNodeWarnsOfPortsThatMove(t *testing.T) {
	taken, err := dns.Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var log bytes.Buffer
	r := &role{place: place{bind: "127.0.0.1", address: "127.0.0.1"}, log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	d, err := readDNS(t, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	usual := taken.Port()
	d.port = 0
	if err := d.port.Set(fmt.Sprint(usual)); err != nil {
		t.Fatal(err)
	}
	list, err := r.listenDNS(d, dnsOptions{portAside: true, portMoved: slog.LevelWarn})
	if err != nil {
		t.Fatal(err)
	}
	defer list[0].Close()
	for _, part := range []string{"level=WARN", "of=DNS", fmt.Sprint("usual=", usual), fmt.Sprint("port=", list[0].Port()), "already"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log says %q, without %q", log.String(), part)
		}
	}
	if got := r.listening; len(got) != 1 || got[0] != "DNS "+net.JoinHostPort("127.0.0.1", fmt.Sprint(list[0].Port())) {
		t.Errorf("it listens at %q", got)
	}
	log.Reset()
	other, err := r.listenDNS(d, dnsOptions{portAside: true})
	if err != nil {
		t.Fatal(err)
	}
	defer other[0].Close()
	if log.Len() > 0 {
		t.Errorf("a role that expects it warns: %s", log.String())
	}
}
