package hosts

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"starling/agent/testenv"
)

// try runs a program on the host and returns what it printed, also when it fails.
func (h *Host) try(name string, args ...string) (string, error) {
	var out []byte
	err := inside(h.netns, func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// daemon runs a program on the host until the end of the test, and shows what it printed when that fails.
func (h *Host) daemon(name string, args ...string) *exec.Cmd {
	h.network.t.Helper()
	out := &output{}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := inside(h.netns, cmd.Start); err != nil {
		h.network.t.Fatal(err)
	}
	h.network.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if h.network.t.Failed() {
			h.network.t.Logf("--- %s\n%s", name, out)
		}
	})
	return cmd
}

// etc is a set of files that a program finds in /etc in place of the machine's.
type etc map[string]string

// glibc is what a program needs that resolves names by glibc from DNS alone, at the server named, with further lines of resolv.conf.
func glibc(server string, more ...string) etc {
	return etc{
		"resolv.conf":   "nameserver " + server + "\n" + strings.Join(append(more, ""), "\n"),
		"nsswitch.conf": "hosts: files dns\n",
		"hosts":         "127.0.0.1 localhost\n",
	}
}

// with returns the command line of a program that sees other files in /etc, in a mount namespace of its own.
func (e etc) with(t *testing.T, args ...string) []string {
	t.Helper()
	testenv.NeedProgram(t, "unshare")
	dir, script := t.TempDir(), ""
	for name, text := range e {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf("mount --bind %s /etc/%s\n", file, name)
	}
	return append([]string{"unshare", "--mount", "sh", "-ec", script + `exec "$@"`, "sh"}, args...)
}

// asked is an answer of DNS.
type asked struct {
	dnsmessage.Header
	// answers are the addresses, or the targets with their ports, in order.
	answers []string
}

// asker asks one server from one host over UDP, as fast as it answers.
type asker struct {
	conn net.Conn
	buf  []byte
}

// asker makes one that asks a server from the host; it is closed at the end of the test.
func (h *Host) asker(server string) *asker {
	h.network.t.Helper()
	c, err := h.Dial(h.network.t.Context(), "udp", server)
	if err != nil {
		h.network.t.Fatal(err)
	}
	h.network.t.Cleanup(func() { c.Close() })
	return &asker{conn: c, buf: make([]byte, 64<<10)}
}

// ask asks one question and waits for the answer to it.
func (a *asker) ask(name string, t dnsmessage.Type) (asked, error) {
	id := uint16(rand.Uint32())
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return asked{}, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: t, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT, Class: 1232}, Body: &dnsmessage.OPTResource{},
		}},
	}
	query, err := m.Pack()
	if err != nil {
		return asked{}, err
	}
	for lost := 0; ; {
		if _, err := a.conn.Write(query); err != nil {
			return asked{}, err
		}
		if err := a.conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return asked{}, err
		}
		got, err := a.answer(id)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return got, err
		}
		// A datagram may be lost, and a busy machine be late: it asks again, as everybody does.
		if lost++; lost == 5 {
			return asked{}, err
		}
	}
}

// answer waits for the one to a question.
func (a *asker) answer(id uint16) (asked, error) {
	for {
		n, err := a.conn.Read(a.buf)
		if err != nil {
			return asked{}, err
		}
		var m dnsmessage.Message
		if err := m.Unpack(a.buf[:n]); err != nil {
			return asked{}, err
		}
		if m.ID != id {
			continue // late, to a question that was given up
		}
		got := asked{Header: m.Header}
		for _, r := range m.Answers {
			switch b := r.Body.(type) {
			case *dnsmessage.AResource:
				got.answers = append(got.answers, net.IP(b.A[:]).String())
			case *dnsmessage.AAAAResource:
				got.answers = append(got.answers, net.IP(b.AAAA[:]).String())
			case *dnsmessage.SRVResource:
				got.answers = append(got.answers, fmt.Sprintf("%s %d", b.Target, b.Port))
			}
		}
		slices.Sort(got.answers)
		return got, nil
	}
}

// places are the addresses with ports of tasks, in order.
func places(tasks []Task) []string {
	var all []string
	for _, task := range tasks {
		for _, port := range task.Ports {
			all = append(all, net.JoinHostPort(task.Host, fmt.Sprint(port)))
		}
	}
	slices.Sort(all)
	return all
}

// same tells why two lists differ, in whatever order they are.
func same(got, want []string) error {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %d: %q, want %d: %q", len(got), got, len(want), want)
	}
	return nil
}

// upstream runs a resolver on the host, which knows www.example.org as 192.0.2.80 and nothing else.
func upstream(h *Host) {
	h.network.t.Helper()
	testenv.NeedProgram(h.network.t, "dnsmasq")
	h.daemon("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root",
		"--address=/www.example.org/192.0.2.80", "--local-ttl=60")
	from := h.asker(h.at(53))
	Eventually(h.network.t, 10*time.Second, "the resolver answers", func() error {
		got, err := from.ask("www.example.org.", dnsmessage.TypeA)
		if err == nil {
			err = same(got.answers, []string{"192.0.2.80"})
		}
		return err
	})
}
