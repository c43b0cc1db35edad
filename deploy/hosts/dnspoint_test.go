package hosts

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The ways in which a node finds names of tasks by its own resolver, as the README has them: its applications ask through glibc, and
// names of others resolve too.
func TestNodesOwnResolver(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name, port string
		// conf is the node's resolv.conf; start is what else runs there.
		conf  etc
		start func(h *Host, upstream string)
	}{
		{"resolv.conf", "53", glibc("127.0.0.1"), nil},
		{"resolv.conf with another behind it", "53", glibc("127.0.0.1", "nameserver 10.77.0.2"), nil},
		{"dnsmasq", "8053", glibc("127.0.0.1"), func(h *Host, upstream string) {
			h.daemon("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--pid-file=", "--user=root",
				"--server="+upstream, "--server=/mesos/127.0.0.1#8053", "--stop-dns-rebind", "--rebind-domain-ok=/mesos/", "--rebind-domain-ok=/example.org/")
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			f, c := NewFlockWithTasks(t, 1, "--dns-port="+way.port, "--resolvers=10.77.0.2")
			h := f.Hosts[0]
			upstream(f.Hosts[1])
			if way.start != nil {
				way.start(h, f.Hosts[1].Addr)
			}
			c.ProbeApp("/web", 2)
			tasks := c.Running("/web", 2)
			for name, want := range map[string][]string{"web.marathon.mesos": hostsOf(tasks), "www.example.org": {"192.0.2.80"}} {
				Eventually(t, 20*time.Second, "glibc finds "+name, func() error {
					args := way.conf.with(t, "getent", "ahosts", name)
					out, err := h.try(args[0], args[1:]...)
					got := column(fields(out, `.*`), 0)
					slices.Sort(got)
					if err := same(slices.Compact(got), want); err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
					return err
				})
			}
			// A task that ends is gone as soon as its answer may have been kept, which is five seconds.
			if _, _, err := c.request("DELETE", c.Marathon+"/v2/apps/web", ""); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			Eventually(t, 30*time.Second, "glibc finds it no more", func() error {
				args := way.conf.with(t, "getent", "ahosts", "web.marathon.mesos")
				if out, err := h.try(args[0], args[1:]...); err == nil {
					return fmt.Errorf("it finds %s", strings.TrimSpace(out))
				}
				return nil
			})
			within(t, "gone from the node's resolver", time.Since(began), 7*time.Second)
		})
	}
}
