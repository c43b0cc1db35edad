//go:build linux && cgo

package libct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/network"
	"starling/agent/network/netns"
	"starling/agent/testenv"
	"starling/master/mesos"
)

const aloneEnv = "STARLING_TEST_ALONE"

// alone tells whether the test is in network and mount namespaces of its own; if it is not, it is run there, and the caller
// is to return.
func alone(t *testing.T, flags ...string) bool {
	t.Helper()
	if os.Getenv(aloneEnv) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return true
	}
	testenv.NeedRoot(t, "for network namespaces")
	testenv.NeedProgram(t, "ip", "iptables")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{"-test.v", "-test.timeout=30m", "-test.run=^" + t.Name() + "$"}, flags...)...)
	cmd.Env = append(os.Environ(), aloneEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Stdout = t.Output()
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	return false
}

// fakeNetworks are namespaces without a device but loopback. What they hold is in their folder, for all lives.
type fakeNetworks struct{ dir string }

func (n *node) withFakeNetworks() *fakeNetworks {
	n.t.Helper()
	f := &fakeNetworks{dir: filepath.Join(n.dir, "net")}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		n.t.Fatal(err)
	}
	n.cfg.Networks = f
	n.t.Cleanup(func() {
		if err := f.Collect(context.Background(), func(string) bool { return false }); err != nil {
			n.t.Error(err)
		}
	})
	return f
}

func (f *fakeNetworks) Check(network.Request) error { return nil }

func (f *fakeNetworks) Attach(_ context.Context, req network.Request) (network.Attachment, error) {
	path := filepath.Join(f.dir, req.ID)
	if at, ok := f.Get(req.ID); ok {
		return at, nil
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return network.Attachment{}, err
	}
	err := netns.New(func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") })
	at, _ := f.Get(req.ID)
	return at, err
}

func (f *fakeNetworks) Get(id string) (network.Attachment, bool) {
	path := filepath.Join(f.dir, id)
	_, err := os.Stat(path)
	return network.Attachment{Path: path, Infos: []*mesos.NetworkInfo{{Name: proto.String("fake")}}, Hostname: "of-" + id}, err == nil
}

func (f *fakeNetworks) Detach(_ context.Context, id string) error {
	path := filepath.Join(f.dir, id)
	_ = unix.Unmount(path, unix.MNT_DETACH)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (f *fakeNetworks) Collect(ctx context.Context, keep func(id string) bool) error {
	var errs []error
	for _, id := range f.list() {
		if !keep(id) {
			errs = append(errs, f.Detach(ctx, id))
		}
	}
	return errors.Join(errs...)
}

func (f *fakeNetworks) list() (ids []string) {
	entries, _ := os.ReadDir(f.dir)
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// inNetwork asks for a network by its name.
func inNetwork(info *mesos.ContainerInfo, name string, ports ...*mesos.NetworkInfo_PortMapping) *mesos.ContainerInfo {
	info.NetworkInfos = []*mesos.NetworkInfo{{Name: &name, PortMappings: ports}}
	return info
}

// realNetworks are those of package network, for a test that is alone.
func (n *node) realNetworks() *network.Networks {
	n.t.Helper()
	nets, err := network.New(networkConfig(n.dir, n.cfg.Log))
	if err != nil {
		n.t.Fatal(err)
	}
	return nets
}

func networkConfig(dir string, log *slog.Logger) network.Config {
	return network.Config{Dir: filepath.Join(dir, "net"), Subnet: "10.213.0.0/24", Log: log}
}

// A container answers at its own address and at a port of the node; members of a group answer each other at loopback. When
// an exit is told, the port is free.
func TestContainersJoinNetworks(t *testing.T) {
	if !alone(t) {
		return
	}
	n := newNode(t)
	n.withBusybox()
	nets := n.realNetworks()
	n.cfg.Networks = nets
	c, x := n.begin()
	get := func(url string) string {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get(url)
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(text))
	}
	serve := func(id string) containerizer.Spec {
		spec := n.shell(id, "echo from "+id+" >index.html; exec busybox httpd -f -p 80")
		spec.Container.Mesos = busyboxImage()
		return spec
	}
	port := &mesos.NetworkInfo_PortMapping{HostPort: proto.Uint32(21080), ContainerPort: proto.Uint32(80)}
	for round := range 2 {
		spec := serve(fmt.Sprintf("web%d", round))
		inNetwork(spec.Container, network.DefaultName, port)
		k, err := c.Launch(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(k.Networks) != 1 || len(k.Networks[0].GetIpAddresses()) == 0 {
			t.Fatalf("networks of the container are %v", k.Networks)
		}
		ip := k.Networks[0].GetIpAddresses()[0].GetIpAddress()
		for _, url := range []string{"http://" + ip, "http://127.0.0.1:21080"} {
			got := ""
			waitFor(t, "an answer from "+url, func() bool { got = get(url); return got == "from "+spec.ID })
		}
		if err := c.Destroy(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
		x.await(spec.ID)
		if _, there := nets.Get(spec.ID); there {
			t.Error("the network is there after the exit was told")
		}
	}

	infos, err := c.OpenGroup(t.Context(), containerizer.Group{ID: "g", Dir: n.dir, Container: inNetwork(isolated(), network.DefaultName, port)})
	if err != nil || len(infos) != 1 {
		t.Fatalf("got %v, %v", infos, err)
	}
	member := serve("member")
	member.Parent = "g"
	if _, err := c.Launch(t.Context(), member); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the member to answer", func() bool { return get("http://127.0.0.1:21080") == "from member" })
	other := n.shell("other", "busybox wget -q -O - http://127.0.0.1/; cat /etc/hosts | grep -c .")
	other.Container.Mesos, other.Parent = busyboxImage(), "g"
	if out, e := n.run(c, x, other); e.Status != 0 || !strings.HasPrefix(out, "from member\n") {
		t.Errorf("got %q, %+v, %s", out, e, n.errOutput("other"))
	}
	if err := c.CloseGroup(t.Context(), "g"); err != nil {
		t.Error(err)
	}
	x.await("member")
	if got := get("http://127.0.0.1:21080"); !strings.Contains(got, "refused") {
		t.Errorf("after the end of the group: %s", got)
	}
	if err := nets.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
