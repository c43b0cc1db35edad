package hosts

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/agent/testenv"
)

// dnsRig is a flock whose tasks others look for by DNS.
type dnsRig struct {
	*Cluster
	*Flock
	// server is the agent that is asked, client the host that asks it: another one.
	server *Agent
	client *Host
}

func newDNSRig(t *testing.T, agents int, flags ...string) *dnsRig {
	t.Helper()
	f, c := NewFlockWithTasks(t, agents, flags...)
	Agree(t, time.Minute, f.Agents...)
	return &dnsRig{Cluster: c, Flock: f, server: f.Agents[0], client: f.Hosts[1]}
}

// app runs so many tasks with a port called http, and waits until the asked server names them all.
func (r *dnsRig) app(id string, instances int) []Task {
	r.Cluster.t.Helper()
	r.ProbeApp(id, instances)
	return r.settled(id, instances)
}

// settled waits until an app has so many tasks, and the asked server names just these.
func (r *dnsRig) settled(id string, instances int) []Task {
	r.Cluster.t.Helper()
	tasks := r.Running(id, instances)
	name := dnsName(id)
	Eventually(r.Cluster.t, 20*time.Second, "DNS names the tasks of "+id, func() error {
		out, err := r.client.try("dig", "@"+r.server.Host.Addr, "+short", "+tries=1", "+time=2", "SRV", "_"+name+"._tcp.marathon.mesos")
		if err != nil {
			return err
		}
		if n := len(strings.Fields(out)) / 4; n != instances {
			return fmt.Errorf("%d are named, want %d", n, instances)
		}
		return nil
	})
	return tasks
}

// dnsName is how an app's id is written in names of DNS: its parts turned round.
func dnsName(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

// fields are those of the lines that begin with a field which matches.
func fields(out, first string) [][]string {
	var all [][]string
	re := regexp.MustCompile(`^(?:` + first + `)$`)
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) > 0 && re.MatchString(f[0]) {
			all = append(all, f)
		}
	}
	return all
}

// column is one of the fields of each line.
func column(lines [][]string, n int) []string {
	var all []string
	for _, f := range lines {
		if n < len(f) {
			all = append(all, f[n])
		}
	}
	return all
}

// The clients that people have at hand get what is there from an agent on another host, each in its own way.
func TestClientsOfDNS(t *testing.T) {
	t.Parallel()
	testenv.NeedProgram(t, "dig")
	testenv.NeedProgram(t, "drill")
	// Names that clients try beside the ones that are meant go to a resolver that answers; one that does not costs its time.
	r := newDNSRig(t, 3, "--resolvers=10.77.0.4")
	upstream(r.Flock.Hosts[3])
	tasks := r.app("/web", 12)
	nested := r.app("/eu/shop", 2)
	var ports []string
	hosts := map[string]bool{}
	for _, task := range tasks {
		ports = append(ports, fmt.Sprint(task.Ports[0]))
		hosts[task.Host] = true
	}
	var addresses []string
	for h := range hosts {
		addresses = append(addresses, h)
	}
	slices.Sort(addresses)
	t.Run("dig", func(t *testing.T) { r.byDig(t, addresses, ports, nested) })
	t.Run("drill", func(t *testing.T) { r.byDrill(t, addresses, ports) })
	t.Run("glibc", func(t *testing.T) { r.byGlibc(t, addresses, nested) })
	t.Run("python", func(t *testing.T) { r.byPython(t, addresses) })
	t.Run("haproxy", func(t *testing.T) { r.byHAProxy(t) })
}

// dig asks the server from the other host.
func (r *dnsRig) dig(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.client.try("dig", append([]string{"@" + r.server.Host.Addr, "+tries=1", "+time=10"}, args...)...)
	if err != nil {
		t.Errorf("dig %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// status finds a response code and the flags in what dig and drill print.
func status(out string) (code, flags string) {
	code = regexp.MustCompile(`(?:status|rcode): (\w+)`).FindStringSubmatch(out + "\nstatus: NONE")[1]
	flags = regexp.MustCompile(`flags: ?([a-z ]*)`).FindStringSubmatch(out + "\nflags: ")[1]
	return code, " " + strings.TrimSpace(flags) + " "
}

func (r *dnsRig) byDig(t *testing.T, addresses, ports []string, nested []Task) {
	const srv = `_web\._tcp\.marathon\.mesos\.`
	for _, how := range []string{"+noedns", "+edns=0", "+bufsize=4096", "+bufsize=512", "+tcp", "+cookie", "+dnssec", "+nsid", "+subnet=192.0.2.0/24", "+padding=128"} {
		out := r.dig(t, how, "SRV", "_web._tcp.marathon.mesos")
		if err := same(column(fields(out, srv), 6), ports); err != nil {
			t.Errorf("dig %s: ports: %v\n%s", how, err, out)
		}
		if code, flags := status(out); code != "NOERROR" || !strings.Contains(flags, " aa ") || strings.Contains(flags, " tc ") {
			t.Errorf("dig %s: %s with flags %q", how, code, flags)
		}
		if how != "+noedns" && how != "+tcp" && !strings.Contains(out, "EDNS: version: 0") {
			t.Errorf("dig %s: there is no OPT in the answer\n%s", how, out)
		}
		if got := fields(out, `web-[a-z0-9-]+\.marathon\.mesos\.`); how == "+tcp" && len(got) != len(ports) {
			t.Errorf("dig +tcp: %d addresses come along, want %d", len(got), len(ports))
		}
	}
	// Twelve do not fit into what a client takes that says nothing, and it is told so.
	out := r.dig(t, "+noedns", "+ignore", "SRV", "_web._tcp.marathon.mesos")
	if n := len(fields(out, srv)); n == 0 || n >= len(ports) {
		t.Errorf("in 512 octets come %d targets", n)
	}
	if _, flags := status(out); !strings.Contains(flags, " tc ") {
		t.Errorf("flags %q of an answer that is cut", flags)
	}
	if size := regexp.MustCompile(`MSG SIZE +rcvd: (\d+)`).FindStringSubmatch(out); len(size) < 2 || len(size[1]) > 3 || size[1] > "512" {
		t.Errorf("its size is %v", size)
	}
	if out := r.dig(t, "+short", "web.marathon.mesos"); same(strings.Fields(out), addresses) != nil {
		t.Errorf("addresses: %q, want %q", out, addresses)
	}
	// The asker's case comes back (0x20), on both paths.
	for _, how := range []string{"+notcp", "+tcp"} {
		if out := r.dig(t, how, "WeB.mARathon.Mesos"); len(fields(out, `WeB\.mARathon\.Mesos\.`)) != len(addresses) {
			t.Errorf("dig %s: the case of the question is not that of the answer:\n%s", how, out)
		}
	}
	for _, name := range []string{"shop.eu.marathon.mesos", "shop-eu.marathon.mesos"} {
		var want []string
		for _, task := range nested {
			want = append(want, task.Host)
		}
		slices.Sort(want)
		if err := same(strings.Fields(r.dig(t, "+short", name)), slices.Compact(want)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tc := range []struct {
		name      string
		args      []string
		code, soa string
	}{
		{"another type", []string{"AAAA", "web.marathon.mesos"}, "NOERROR", "mesos."},
		{"no such name", []string{"A", "nobody.marathon.mesos"}, "NXDOMAIN", "mesos."},
		{"no such service", []string{"SRV", "_nobody._tcp.marathon.mesos"}, "NXDOMAIN", "mesos."},
		{"a name with names below it", []string{"A", "eu.marathon.mesos"}, "NOERROR", "mesos."},
		{"the domain itself", []string{"A", "mesos"}, "NOERROR", "mesos."},
		{"class CH", []string{"-c", "CH", "TXT", "whoami"}, "REFUSED", ""},
	} {
		for _, how := range []string{"+notcp", "+tcp"} {
			out := r.dig(t, append([]string{how}, tc.args...)...)
			code, _ := status(out)
			soa := ""
			for _, f := range strings.Split(out, "\n") {
				if f := strings.Fields(f); len(f) > 4 && f[3] == "SOA" {
					soa = f[0]
				}
			}
			if code != tc.code || soa != tc.soa || strings.Contains(out, "ANSWER SECTION") {
				t.Errorf("%s (%s): %s with SOA %q, want %s with %q:\n%s", tc.name, how, code, soa, tc.code, tc.soa, out)
			}
		}
	}
	if out := r.dig(t, "SOA", "mesos"); len(fields(out, `mesos\.`)) != 1 || !strings.Contains(out, "ANSWER SECTION") {
		t.Errorf("SOA: %s", out)
	}
}

func (r *dnsRig) byDrill(t *testing.T, addresses, ports []string) {
	for _, how := range [][]string{{"-t"}, {"-b", "1232"}, {"-b", "4096"}, {"-t", "-D"}} {
		args := append(how, "_web._tcp.marathon.mesos", "@"+r.server.Host.Addr, "SRV")
		out, err := r.client.try("drill", args...)
		if err := errors.Join(err, same(column(fields(out, `_web\._tcp\.marathon\.mesos\.`), 6), ports)); err != nil {
			t.Errorf("drill %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	out, err := r.client.try("drill", "web.marathon.mesos", "@"+r.server.Host.Addr)
	if err := errors.Join(err, same(column(fields(out, `web\.marathon\.mesos\.`), 4), addresses)); err != nil {
		t.Errorf("drill: %v\n%s", err, out)
	}
	out, err = r.client.try("drill", "nobody.marathon.mesos", "@"+r.server.Host.Addr)
	if code, _ := status(out); err != nil || code != "NXDOMAIN" {
		t.Errorf("drill: no such name: %v\n%s", err, out)
	}
}

// byGlibc asks through getaddrinfo, which sends the questions for A and AAAA at once over one socket.
func (r *dnsRig) byGlibc(t *testing.T, addresses []string, nested []Task) {
	testenv.NeedProgram(t, "getent")
	server := r.server.Host.Addr
	var mapped []string // what getent makes of IPv4 where IPv6 is asked for
	for _, a := range addresses {
		mapped = append(mapped, "::ffff:"+a)
	}
	const soon = 1500 * time.Millisecond // thrice that is allowed, and a question that is lost costs glibc five seconds
	for _, tc := range []struct {
		name    string
		conf    etc
		args    []string
		want    []string // nil is that the name is not found
		slowest time.Duration
	}{
		{"both families", glibc(server), []string{"ahosts", "web.marathon.mesos"}, addresses, soon},
		{"with a final dot", glibc(server), []string{"ahosts", "web.marathon.mesos."}, addresses, soon},
		{"IPv4", glibc(server), []string{"ahostsv4", "web.marathon.mesos"}, addresses, soon},
		{"IPv6, which it has not", glibc(server), []string{"ahostsv6", "web.marathon.mesos"}, mapped, soon},
		{"a search domain", glibc(server, "search other.mesos marathon.mesos"), []string{"ahosts", "web"}, addresses, soon},
		{"a search domain, a name with a dot", glibc(server, "search marathon.mesos"), []string{"ahosts", "shop.eu"}, hostsOf(nested), soon},
		{"one question at a time", glibc(server, "options single-request"), []string{"ahosts", "web.marathon.mesos"}, addresses, soon},
		{"EDNS0", glibc(server, "options edns0 trust-ad"), []string{"ahosts", "web.marathon.mesos"}, addresses, soon},
		{"over TCP", glibc(server, "options use-vc"), []string{"ahosts", "web.marathon.mesos"}, addresses, soon},
		{"mixed case", glibc(server), []string{"ahosts", "WEB.Marathon.MESOS"}, addresses, soon},
		{"no such name", glibc(server, "search marathon.mesos mesos"), []string{"ahosts", "nobody"}, nil, soon},
		// A resolver that is gone costs its time, and the next one answers.
		{"after one that is silent", glibc("10.77.0.250", "nameserver "+server, "options timeout:1 attempts:1"), []string{"ahosts", "web.marathon.mesos"}, addresses, 4 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := tc.conf.with(t, append([]string{"getent"}, tc.args...)...)
			began := time.Now()
			out, err := r.client.try(args[0], args[1:]...)
			took := time.Since(began)
			if tc.want == nil && (err == nil || out != "") || tc.want != nil && err != nil {
				t.Errorf("getent %v: %q, %v", tc.args, out, err)
			}
			got := column(fields(out, `.*`), 0)
			slices.Sort(got)
			if err := same(slices.Compact(got), tc.want); err != nil {
				t.Errorf("getent %v: %v", tc.args, err)
			}
			if took > 3*tc.slowest {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// hostsOf are the addresses of tasks, each once.
func hostsOf(tasks []Task) []string {
	var all []string
	for _, task := range tasks {
		all = append(all, task.Host)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// byPython asks as a program of users' does, with a connection to what it found.
func (r *dnsRig) byPython(t *testing.T, addresses []string) {
	testenv.NeedProgram(t, "python3")
	const script = `
import socket
for family in (socket.AF_UNSPEC, socket.AF_INET):
    print(",".join(sorted({a[4][0] for a in socket.getaddrinfo("web.marathon.mesos", 80, family, socket.SOCK_STREAM)})))
try:
    socket.getaddrinfo("nobody.marathon.mesos", 80)
except socket.gaierror as e:
    print(e.errno == socket.EAI_NONAME)
`
	args := glibc(r.server.Host.Addr).with(t, "python3", "-c", script)
	out, err := r.client.try(args[0], args[1:]...)
	all := strings.Join(addresses, ",")
	if want := all + "\n" + all + "\nTrue\n"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

// haproxyConfig has its servers from SRV records alone. What HAProxy takes counts over TCP as well, and it does not turn to that by
// itself when an answer is cut.
const haproxyConfig = `
global
	stats socket %[1]s/socket mode 600 level admin
	maxconn 500
defaults
	mode http
	timeout connect 2s
	timeout client 10s
	timeout server 10s
	default-server init-addr none
resolvers starling
	nameserver node %[2]s
	accepted_payload_size %[3]d
	resolve_retries 3
	timeout resolve 200ms
	timeout retry 500ms
	hold valid 200ms
	hold obsolete 0s
	hold nx 0s
frontend front
	bind %[4]s
	default_backend web
backend web
	balance roundrobin
	server-template web 30 %[5]s resolvers starling resolve-prefer ipv4 check inter 500ms
`

// byHAProxy runs HAProxy whose servers come and go with the tasks of an app: scaled up, down, killed.
func (r *dnsRig) byHAProxy(t *testing.T) {
	testenv.NeedProgram(t, "haproxy")
	r.app("/shop", 2)
	for i, way := range []struct {
		name, server, service string
		size                  int
		most                  int
	}{
		{"without EDNS0's sizes", r.server.Host.at(53), "_shop._tcp.marathon.mesos", 512, 4},
		{"with EDNS0", r.server.Host.at(53), "_http._shop._tcp.marathon.mesos", 6000, 8},
		{"over TCP", "tcp@" + r.server.Host.at(53), "_shop._tcp.marathon.mesos", 8192, 24},
	} {
		t.Run(way.name, func(t *testing.T) {
			r.scale("/shop", 2)
			dir := t.TempDir()
			front := fmt.Sprintf("%s:%d", r.client.Addr, 18080+i)
			file := filepath.Join(dir, "haproxy.cfg")
			if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, dir, way.server, way.size, front, way.service), 0o644); err != nil {
				t.Fatal(err)
			}
			proxy := r.client.daemon("haproxy", "-db", "-f", file)
			defer func() { _ = proxy.Process.Kill() }()
			r.proxied(t, dir, front, r.settled("/shop", 2))
			r.scale("/shop", way.most)
			tasks := r.settled("/shop", way.most)
			r.proxied(t, dir, front, tasks)
			// One that dies is replaced at another port.
			killProcess(t, r.Answers(tasks[:1])[tasks[0].ID])
			Eventually(t, 30*time.Second, "the task is replaced", func() error {
				a, err := r.App("/shop")
				if err == nil && slices.ContainsFunc(a.Tasks, func(o Task) bool { return o.ID == tasks[0].ID }) {
					err = errors.New("it is there")
				}
				return err
			})
			r.proxied(t, dir, front, r.settled("/shop", way.most))
			r.scale("/shop", 1)
			r.proxied(t, dir, front, r.settled("/shop", 1))
		})
	}
}

func (r *dnsRig) scale(id string, instances int) {
	r.Cluster.t.Helper()
	if _, answer, err := r.request("PUT", r.Marathon+"/v2/apps"+id, fmt.Sprintf(`{"instances":%d}`, instances)); err != nil {
		r.Cluster.t.Fatalf("cannot scale %s: %v: %s", id, err, answer)
	}
}

// proxied waits until HAProxy has just the tasks for its servers, and holds them for up, and sees that all of them answer through it.
func (r *dnsRig) proxied(t *testing.T, dir, front string, tasks []Task) {
	t.Helper()
	began := time.Now()
	Eventually(t, 30*time.Second, fmt.Sprintf("HAProxy has the %d tasks", len(tasks)), func() error {
		c, err := net.DialTimeout("unix", filepath.Join(dir, "socket"), time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("show servers state web\n")); err != nil {
			return err
		}
		buf := make([]byte, 64<<10)
		var text strings.Builder
		for {
			n, err := c.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				break
			}
		}
		var up []string
		for _, f := range fields(text.String(), `\d+`) {
			// be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state ... srv_port is the 19th.
			const operational, running = 5, "2"
			if len(f) > 18 && f[operational] == running {
				up = append(up, net.JoinHostPort(f[4], f[18]))
			}
		}
		return same(up, places(tasks))
	})
	answered := map[string]bool{}
	Eventually(t, 30*time.Second, "all tasks answer through HAProxy", func() error {
		_, body, err := r.request("GET", "http://"+front+"/", "")
		if err != nil {
			return err
		}
		answered[body] = true
		if len(answered) != len(tasks) {
			return fmt.Errorf("%d of %d have answered", len(answered), len(tasks))
		}
		return nil
	})
	t.Logf("HAProxy has %d servers %v after DNS named them", len(tasks), time.Since(began).Round(10*time.Millisecond))
}
