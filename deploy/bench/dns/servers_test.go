//go:build linux

package dns_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/deploy/hosts"
)

// nsdConfig has one process for questions and no limit of rates. With minimal responses it leaves out the name server, and the
// addresses of an SRV's targets, which starling sends.
const nsdConfig = `server:
	server-count: 1
	ip-address: 127.0.0.1@PORT
	do-ip6: no
	username: ""
	chroot: ""
	zonesdir: "DIR"
	pidfile: "DIR/pid"
	xfrdfile: "DIR/xfrd"
	xfrdir: "DIR"
	zonelistfile: "DIR/list"
	cookie-secret-file: ""
	rrl-ratelimit: 0
	rrl-whitelist-ratelimit: 0
remote-control:
	control-enable: no
zone:
	name: "mesos"
	zonefile: "ZONE"
`

// peer starts another server with a zone; nil where it is not installed.
func peer(t *testing.T, name, zone string) *server {
	dir := t.TempDir()
	s := &server{name: name, addr: netip.AddrPortFrom(loopback, uint16(hosts.FreePort(t, loopback.String())))}
	p := map[string]struct {
		program, config string
		args            []string
	}{
		"nsd":         {"nsd", nsdConfig, []string{"-d", "-c", "CONFIG"}},
		"nsd-minimal": {"nsd", strings.Replace(nsdConfig, "server:\n", "server:\n\tminimal-responses: yes\n", 1), []string{"-d", "-c", "CONFIG"}},
		"unbound": {"unbound", `server:
	interface: 127.0.0.1@PORT
	do-ip6: no
	do-daemonize: no
	username: ""
	chroot: ""
	directory: "DIR"
	pidfile: ""
	use-syslog: no
	num-threads: 1
	module-config: "iterator"
remote-control:
	control-enable: no
auth-zone:
	name: "mesos"
	zonefile: "ZONE"
	for-upstream: no
	for-downstream: yes
	fallback-enabled: no
`, []string{"-d", "-c", "CONFIG"}},
		"knot": {"knotd", `server:
    rundir: "DIR"
    listen: 127.0.0.1@PORT
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "DIR"
zone:
  - domain: mesos
    file: "ZONE"
    storage: "DIR"
    zonefile-load: whole
    journal-content: none
`, []string{"-c", "CONFIG"}},
	}[name]
	if p.program == "" {
		t.Fatalf("-only: no server is called %q", name)
	}
	path := lookup(p.program)
	if path == "" {
		t.Logf("%s is left out: no %s here (Debian: nsd, unbound, knot)", name, p.program)
		return nil
	}
	config := filepath.Join(dir, name+".conf")
	in := strings.NewReplacer("PORT", fmt.Sprint(s.addr.Port()), "DIR", dir, "ZONE", zone, "CONFIG", config)
	if err := os.WriteFile(config, []byte(in.Replace(p.config)), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range p.args {
		p.args[i] = in.Replace(p.args[i])
	}
	s.process = start(t, name, path, p.args...)
	last := questionsFor("A", instances*1)
	hosts.Eventually(t, 30*time.Second, name+" answers", func() error {
		select {
		case <-s.done:
			t.Fatalf("%s ended:\n%s", name, s.output())
		default:
		}
		o, err := load{server: s.addr, questions: last, sockets: 1, window: 1, lasts: 20 * time.Millisecond, cpu: -1}.run()
		if err == nil {
			err = o.wholly()
		}
		return err
	})
	return s
}
