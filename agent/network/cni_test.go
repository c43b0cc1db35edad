//go:build linux

package network

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakePlugin notes how it was called, and makes a device in the namespace as a real one does.
const fakePlugin = `#!/bin/sh
in=$(cat)
echo "$CNI_COMMAND $CNI_IFNAME $CNI_CONTAINERID $in" >> CALLS
case $CNI_COMMAND in
ADD)
	nsenter --net="$CNI_NETNS" ip link add "$CNI_IFNAME" type veth peer name "p$CNI_IFNAME" || exit 1
	nsenter --net="$CNI_NETNS" ip addr add 10.66.0.9/24 dev "$CNI_IFNAME"
	echo '{"cniVersion":"1.0.0","ips":[{"address":"fd00::9/64"},{"address":"10.66.0.9/24"}],"dns":{"nameservers":["10.66.0.1"]}}' ;;
DEL) nsenter --net="$CNI_NETNS" ip link del "$CNI_IFNAME" 2>/dev/null ;;
esac
exit 0
`

func (w *world) cni(files map[string]string) func(*Config) {
	w.t.Helper()
	dir := filepath.Join(w.dir, "cni")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "CALLS", filepath.Join(dir, "calls"))), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	return func(c *Config) {
		c.CNIConfigDir, c.CNIPluginsDir = filepath.Join(dir, "conf"), filepath.Join(dir, "none")+":"+filepath.Join(dir, "bin")
	}
}

func (w *world) calls() []string {
	data, err := os.ReadFile(filepath.Join(w.dir, "cni", "calls"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestCNI(t *testing.T) {
	w := newWorld(t)
	plugins := w.cni(map[string]string{
		"bin/fake": fakePlugin, "bin/passing": "#!/bin/sh\nin=$(cat); echo \"$CNI_COMMAND passing $in\" >> CALLS\n" +
			"echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.66.0.9/24\"}],\"dns\":{\"nameservers\":[\"10.66.0.1\"]}}'\n",
		"bin/failing": "#!/bin/sh\ncat >/dev/null; [ $CNI_COMMAND = DEL ] && exit 0; echo '{\"code\":7,\"msg\":\"no more wires\"}'; exit 1\n",
		"bin/hanging": "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit 0; sleep 100 & sleep 100\n",
		"conf/1.conflist": `{"cniVersion":"1.0.0","name":"wires","plugins":[{"type":"fake","colour":"red"},
			{"type":"passing","capabilities":{"portMappings":true}}]}`,
		"conf/2.conf":     `{"cniVersion":"0.3.1","name":"single","type":"fake"}`,
		"conf/3.conflist": `{"cniVersion":"1.0.0","name":"broken","plugins":[{"type":"fake"},{"type":"failing"}]}`,
		"conf/4.conf":     `{"cniVersion":"0.3.1","name":"path","type":"../../bin/sh"}`,
		"conf/5.conf":     `{"cniVersion":"0.3.1","name":"lacking","type":"nobody"}`,
		"conf/6.conf":     `{"cniVersion":"0.3.1","name":"slow","type":"hanging"}`,
		"conf/7.conf":     `{`,
		"conf/notes.txt":  `{`,
	})
	n := w.networks(plugins)
	a := w.attach(n, request("a", on("wires", mapping(31001, 80, "")), on(DefaultName)))
	if address(a) != "10.66.0.9" || a.Infos[0].GetName() != "wires" || a.Infos[0].GetPortMappings()[0].GetHostPort() != 31001 ||
		!strings.HasPrefix(a.Infos[1].GetIpAddresses()[0].GetIpAddress(), "10.213.0.") {
		t.Errorf("told %v", a.Infos)
	}
	calls := w.calls()
	if len(calls) != 2 || !strings.HasPrefix(calls[0], "ADD eth0 a ") || !strings.Contains(calls[0], `"colour":"red"`) ||
		!strings.Contains(calls[0], `"name":"wires"`) || !strings.Contains(calls[0], `"host_port":31001`) ||
		!strings.Contains(calls[1], `"prevResult":{"cniVersion"`) || !strings.Contains(calls[1], `"hostPort":31001`) {
		t.Errorf("the plugins were called as %q", calls)
	}
	conf, err := os.ReadFile(filepath.Join(n.dir("a"), "resolv.conf"))
	if err != nil || !strings.Contains(string(conf), "nameserver 10.66.0.1\n") {
		t.Errorf("resolv.conf is %q, %v", conf, err)
	}
	// The next life of the agent ends it with what was noted, whatever the configuration says by then.
	os.Remove(filepath.Join(w.dir, "cni/conf/1.conflist"))
	next := w.networks(plugins)
	if again, err := next.Attach(t.Context(), request("a", on("wires"))); err != nil || address(again) != address(a) {
		t.Errorf("what is there and named nowhere any more: got %v, %v", again.Infos, err)
	}
	if err := next.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if calls = w.calls(); len(calls) != 4 || !strings.HasPrefix(calls[2], "DEL passing") || !strings.HasPrefix(calls[3], "DEL eth0 a ") {
		t.Errorf("the plugins were called as %q", calls)
	}

	single := w.attach(next, request("s", on("single")))
	if address(single) != "10.66.0.9" {
		t.Errorf("told %v", single.Infos)
	}
	for _, tc := range []struct{ network, want string }{
		{"broken", "no more wires (code 7)"},
		{"path", `"../../bin/sh"`},
		{"lacking", "nobody is not in"},
		{"wires", `"wires" is unknown`},
		{"nothing", `["broken" "lacking" "path" "single" "slow"]`},
	} {
		_, err := next.Attach(t.Context(), request("x", on(tc.network)))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.network, err, tc.want)
		}
		if _, err := os.Stat(next.dir("x")); err == nil {
			t.Errorf("%s: something is left", tc.network)
		}
	}
	if _, err := next.Attach(t.Context(), request("x", on("single", mapping(31001, 80, "")))); err == nil || !strings.Contains(err.Error(), "maps no ports") {
		t.Errorf("ports without a plugin for them: got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := next.Attach(ctx, request("y", on("slow"))); err == nil || time.Since(begun) > time.Minute {
		t.Errorf("a plugin that hangs: got %v after %v", err, time.Since(begun))
	}
	if last := w.calls(); !strings.Contains(strings.Join(last, "\n"), "DEL eth0 x ") {
		t.Errorf("what a failing list had begun was not taken back: %q", last)
	}
}
