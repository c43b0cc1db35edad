package check

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/network/netns"
	"starling/agent/testenv"
	"starling/master/mesos"
)

// elsewhere returns the file of a network namespace of its own.
func elsewhere(t testing.TB) string {
	t.Helper()
	testenv.NeedRoot(t, "for a network namespace")
	cmd := exec.Command("/bin/sh", "-c", "ip link set lo up && echo ready && exec sleep 1000")
	cmd.SysProcAttr = newNamespace()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("cannot make a namespace: %q, %v", line, err)
	}
	return "/proc/" + itoa(cmd.Process.Pid) + "/ns/net"
}

func listen(t testing.TB, ns, address string, handler http.Handler) uint32 {
	t.Helper()
	var l net.Listener
	if err := netns.Do(ns, func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

func TestInTheNamespaceOfTheTask(t *testing.T) {
	ns := elsewhere(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "http://localhost:"+strings.Split(r.Host, ":")[1]+"/", http.StatusFound)
		}
	})
	four, six := listen(t, ns, fmt.Sprint("127.0.0.1:", testenv.UnusedPort(t)), handler), listen(t, ns, "[::1]:0", handler)
	p := &Prober{Namespace: ns}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, tc := range []struct {
		name    string
		spec    Spec
		healthy bool
	}{
		{"http", Spec{Kind: HTTP, Scheme: "http", Path: "/", Port: four}, true},
		{"redirected to a name", Spec{Kind: HTTP, Scheme: "http", Path: "/moved", Port: four}, true},
		{"tcp", Spec{Kind: TCP, Port: four}, true},
		{"http over IPv6", Spec{Kind: HTTP, Scheme: "http", Path: "/", Port: six, IPv6: true}, true},
		{"tcp over IPv6", Spec{Kind: TCP, Port: six, IPv6: true}, true},
		{"nobody", Spec{Kind: TCP, Port: 1}, false},
	} {
		if r := p.Probe(ctx, tc.spec); r.Healthy != tc.healthy {
			t.Errorf("%s: got %+v", tc.name, r)
		}
	}
	if r := (&Prober{}).Probe(ctx, Spec{Kind: TCP, Port: four}); r.Healthy {
		t.Error("a task's loopback address is asked on the node")
	}
}

// TestAddressWhereTheNamespaceIsOutOfReach asks the task by its address: an agent without root, an engine elsewhere.
func TestAddressWhereTheNamespaceIsOutOfReach(t *testing.T) {
	port := listen(t, "", fmt.Sprint("127.0.0.2:", testenv.UnusedPort(t)), http.NotFoundHandler())
	p := &Prober{Namespace: "/proc/0/ns/net", Address: "127.0.0.2"}
	if r := p.Probe(t.Context(), Spec{Kind: TCP, Port: port}); !r.Healthy {
		t.Errorf("got %+v", r)
	}
	if r := (&Prober{Namespace: "/proc/0/ns/net"}).Probe(t.Context(), Spec{Kind: TCP, Port: port}); r.Healthy {
		t.Errorf("without an address: got %+v", r)
	}
}

// session is one that ends with a status, or not at all.
type session struct {
	status  int
	hangs   bool
	closed  chan struct{}
	out     io.Reader
	unknown bool
}

func (s *session) Input() io.WriteCloser       { return nil }
func (s *session) Output() io.Reader           { return s.out }
func (s *session) ErrOutput() io.Reader        { return nil }
func (s *session) Resize(uint16, uint16) error { return nil }
func (s *session) Close() error                { close(s.closed); return nil }
func (s *session) Wait(ctx context.Context) (containerizer.Exit, error) {
	if s.hangs {
		<-ctx.Done()
		return containerizer.Exit{}, ctx.Err()
	}
	return containerizer.Exit{Known: !s.unknown, Status: s.status}, nil
}

func TestCommandInTheContainer(t *testing.T) {
	var asked containerizer.Process
	var current *session
	p := &Prober{Exec: func(_ context.Context, process containerizer.Process) (containerizer.Session, error) {
		asked = process
		if current == nil {
			return nil, errors.New("no such container")
		}
		current.closed = make(chan struct{})
		return current, nil
	}}
	info := &mesos.CommandInfo{Value: proto.String("test -e /ok"), Environment: &mesos.Environment{
		Variables: []*mesos.Environment_Variable{{Name: proto.String("A"), Value: proto.String("b")}},
	}}
	five := int32(5)
	for _, tc := range []struct {
		name    string
		session *session
		healthy bool
		exit    *int32
		text    string
	}{
		{"success", &session{out: strings.NewReader(strings.Repeat("x", 1<<20))}, true, new(int32), ""},
		{"failure", &session{status: 5 << 8}, false, &five, "status 5"},
		{"a signal", &session{status: int(syscall.SIGKILL)}, false, nil, "signal 9"},
		{"unknown", &session{unknown: true}, false, nil, "could not be learned"},
		{"too long", &session{hangs: true}, false, nil, "in time"},
		{"no container", nil, false, nil, "no such container"},
	} {
		current = tc.session
		within := time.Minute
		if tc.session != nil && tc.session.hangs {
			within = 100 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		r := p.Probe(ctx, Spec{Kind: Command, Command: info})
		cancel()
		if r.Healthy != tc.healthy || (r.Exit == nil) != (tc.exit == nil) || r.Exit != nil && *r.Exit != *tc.exit ||
			(r.Err == nil) != (tc.text == "") || r.Err != nil && !strings.Contains(r.Err.Error(), tc.text) {
			t.Errorf("%s: got %+v", tc.name, r)
		}
		if tc.session != nil {
			select {
			case <-tc.session.closed:
			default:
				t.Errorf("%s: the session was left open", tc.name)
			}
		}
	}
	if asked.Path != "/bin/sh" || !slices.Equal(asked.Args, []string{"sh", "-c", "test -e /ok"}) || !slices.Equal(asked.Env, []string{"A=b"}) {
		t.Errorf("asked for %+v", asked)
	}
	p.Probe(t.Context(), Spec{Kind: Command, Command: &mesos.CommandInfo{
		Shell: proto.Bool(false), Value: proto.String("/bin/true"), Arguments: []string{"true", "x"},
	}})
	if asked.Path != "/bin/true" || !slices.Equal(asked.Args, []string{"true", "x"}) {
		t.Errorf("without a shell: asked for %+v", asked)
	}
}
