package hosts

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"starling/agent/network/resolv"
)

// asksScript serves what the container's resolv.conf says, and what it is told of an app's name and of a foreign one.
const asksScript = `mkdir -p /www; cat /etc/resolv.conf >/www/conf; ` +
	`(until nslookup target.marathon.mesos; do sleep 0.3; done) >/www/name 2>&1; ` +
	`nslookup www.example.org >/www/foreign 2>&1; wget -q -O /www/page http://target.marathon.mesos:$TARGET/; exec httpd -f -p $ASKER -h /www`

// Containers of every kind ask their node when they are told to: by the address of it that they reach, for names of tasks and for
// others.
func TestContainersAskTheirNode(t *testing.T) {
	r := newEngineRig(t, "--container-dns", "--resolvers=10.77.0.2")
	upstream(r.network.Hosts[1])
	node := r.agent.Host.Addr
	r.ProbeApp("/target", 1, `{"portDefinitions":[{"port":31999,"name":"http"}],"requirePorts":true}`)
	target := r.Running("/target", 1)[0]
	const image = `"docker":{"image":"` + engineImage + `"}`
	for i, tc := range []struct{ name, container string }{
		{"docker-bridge", `"container":{"type":"DOCKER",` + image + `,"portMappings":[{"containerPort":80,"hostPort":0}]},"networks":[{"mode":"container/bridge"}]`},
		{"docker-host", `"container":{"type":"DOCKER",` + image + `}`},
		{"mesos-bridge", `"container":{"type":"MESOS",` + image + `,"portMappings":[{"containerPort":80,"hostPort":0}]},"networks":[{"mode":"container/bridge"}]`},
		{"mesos-host", `"container":{"type":"MESOS",` + image + `}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			port := 80
			if strings.HasSuffix(tc.name, "host") {
				port = 31900 + i
			}
			script := strings.NewReplacer("$TARGET", fmt.Sprint(target.Ports[0]), "$ASKER", fmt.Sprint(port)).Replace(asksScript)
			body := fmt.Sprintf(`{"id":"/%s","instances":1,"cpus":0.1,"mem":64,"cmd":%q,%s}`, tc.name, script, tc.container)
			if _, answer, err := r.request("POST", r.Marathon+"/v2/apps", body); err != nil {
				t.Fatalf("%v: %s", err, answer)
			}
			task := r.Running("/"+tc.name, 1)[0]
			if port == 80 {
				port = task.Ports[0]
			}
			page := func(path string) string {
				var text string
				Eventually(t, 40*time.Second, tc.name+" serves /"+path, func() (err error) {
					_, text, err = r.request("GET", fmt.Sprintf("http://%s:%d/%s", node, port, path), "")
					return err
				})
				return text
			}
			asked := resolv.Parse(page("conf")).Nameservers
			if len(asked) != 1 || tc.name != "mesos-bridge" && asked[0] != node {
				t.Errorf("it asks %v", asked)
			}
			if tc.name == "mesos-bridge" && asked[0] == node {
				t.Errorf("it asks %v, which may change, and not the bridge's", asked)
			}
			if got := page("name"); !strings.Contains(got, target.Host) {
				t.Errorf("the name of a task: %s", got)
			}
			if got := page("foreign"); !strings.Contains(got, "192.0.2.80") {
				t.Errorf("a foreign name: %s", got)
			}
			if got := page("page"); !strings.HasPrefix(got, target.ID+" ") {
				t.Errorf("by its name it reaches %q", got)
			}
		})
	}
}

// What cannot work is said at the start.
func TestContainerDNSThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--ip=127.0.0.1"}, "do not reach 127.0.0.1"},
		{[]string{"--ip=127.0.0.1", "--dns-port=8053"}, "--dns-port=8053"},
	} {
		args := append([]string{
			"agent", "--work-dir", t.TempDir(), "--container-dns", fmt.Sprint("--port=", FreePort(t, "127.0.0.1")),
			fmt.Sprint("--mesh-port=", FreePort(t, "127.0.0.1")), "--no-discover",
		}, tc.args...)
		out, err := exec.Command(binary, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tc.want) || !strings.Contains(string(out), "--container-dns") {
			t.Errorf("%q: %v %s; want a failure with %q", args, err, out, tc.want)
		}
	}
}

// A port 53 that somebody holds is explained with who that is: as the reason to answer at another, or to end where it was asked for.
func TestTakenPortOfDNSIsExplained(t *testing.T) {
	t.Parallel()
	w := NewNetwork(t, 1)
	h := w.Hosts[0]
	upstream(h) // holds port 53
	key := newKey(t)
	a := h.Agent(workDir(t), "--cluster-key-file", key)
	a.Ready()
	if out := a.out.String(); !strings.Contains(out, "is held by dnsmasq (process ") || !strings.Contains(out, "server=/mesos/127.0.0.1#8053") {
		t.Errorf("it does not say who has port 53, and what to do:\n%s", out)
	}
	if out := h.run("dig", "@"+h.Addr, "-p", "8053", "SOA", "mesos"); !strings.Contains(out, "NOERROR") {
		t.Errorf("at 8053: %s", out)
	}
	for _, flag := range []string{"--dns-port=53", "--container-dns"} {
		out, err := h.try("timeout", "20", binary, "agent", "--work-dir", t.TempDir(), "--cluster-key-file", key, "--port=5052", "--mesh-port=7947", flag)
		if err == nil || !strings.Contains(out, "is held by dnsmasq") || !strings.Contains(out, "--dns-port") {
			t.Errorf("%s: %v: %s", flag, err, out)
		}
	}
}
