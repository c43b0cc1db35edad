package gossip

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/hashicorp/memberlist"
)

// readConn is a stream that brings so much and ends.
type readConn struct {
	net.Conn
	r *bytes.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.r.Read(b) }
func (readConn) Write(b []byte) (int, error)  { return len(b), nil }
func (readConn) Close() error                 { return nil }
func (readConn) RemoteAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }

// FuzzGate shows anything to the gate, as a datagram, as a stream and as an answer, with a key and without. What passes is what came, byte
// for byte, and nothing of it stays.
func FuzzGate(f *testing.F) {
	label := []byte{wireLabel, 1, 'c'}
	for _, msg := range [][]byte{
		{},
		{wirePing},
		{wireUser, 1, 2},
		compoundOf([]byte{wireUser}, []byte{wireAck}),
		{wireChecksum, 0, 0, 0, 0, wireUser},
		message1(wirePushPull, "Nodes", 3, "UserStateLen", 5, "Join", true), message1(wireUser, "UserMsgLen", 1<<20),
		message1(wireUser, "UserMsgLen", -1),
		{wireEncrypted, 0, 0, 0, 40, 1},
		bomb(100, 1),
	} {
		f.Add(msg)
		f.Add(append(bytes.Clone(label), msg...))
	}
	ring, err := memberlist.NewKeyring(nil, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, g := range []*gate{{label: "c"}, {label: "c", keyring: ring}} {
			_ = g.packet(b)
			refused := 0
			for _, c := range []net.Conn{
				g.accept(readConn{r: bytes.NewReader(b)}, func() { refused++ }), g.dialled(readConn{r: bytes.NewReader(b)}, func() { refused++ }),
			} {
				got, err := io.ReadAll(c)
				if !bytes.HasPrefix(b, got) {
					t.Fatalf("%x came as %x", b, got)
				}
				if err == nil && len(got) > 0 && len(got) < len(b) {
					t.Fatalf("%d bytes of %d came, and no error", len(got), len(b))
				}
				if s := c.(*stream); s.announced > maxStream+maxStream {
					t.Fatalf("%d bytes are reserved", s.announced)
				}
				closeQuietly(c)
				closeQuietly(c)
			}
			if g.streams != 0 || g.bytes != 0 || len(g.hosts) != 0 {
				t.Fatalf("%d streams of %d hosts with %d bytes are left", g.streams, len(g.hosts), g.bytes)
			}
		}
	})
}

func TestGateBoundsStreams(t *testing.T) {
	g := &gate{label: "c"}
	var open []net.Conn
	refused := 0
	accept := func() bool {
		c := g.accept(readConn{r: bytes.NewReader(append([]byte{wireLabel, 1, 'c'}, message1(wireUser, "UserMsgLen", 9<<20)...))}, func() { refused++ })
		if c == nil {
			return false
		}
		open = append(open, c)
		return true
	}
	for accept() {
	}
	if len(open) != maxHostStreams || refused != 1 {
		t.Errorf("%d streams of one host were taken and %d refused, want %d and 1", len(open), refused, maxHostStreams)
	}
	passed := 0
	for _, c := range open {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			passed++
		}
	}
	if passed != maxHostOpen/(9<<20) || g.bytes > maxHostOpen {
		t.Errorf("%d streams of one host may bring 9 MiB, %d bytes in all", passed, g.bytes)
	}
	closeQuietly(open[0])
	if !accept() {
		t.Error("no room after one was closed")
	}
}
