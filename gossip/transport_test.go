package gossip

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// lateTransport gets rid of what it has received before it ends, as memberlist's does.
type lateTransport struct {
	memberlist.Transport
	packets chan *memberlist.Packet
	streams chan net.Conn
	late    int
	others  chan net.Conn // the other ends of the streams
}

func (l *lateTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(127, 0, 0, 1), 7946, nil
}

func (l *lateTransport) PacketCh() <-chan *memberlist.Packet { return l.packets }

func (l *lateTransport) StreamCh() <-chan net.Conn { return l.streams }

func (l *lateTransport) Shutdown() error {
	for range l.late {
		// A message that memberlist knows: a ping.
		l.packets <- &memberlist.Packet{Buf: []byte{wirePing}, From: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}
		here, there := net.Pipe()
		l.others <- there
		l.streams <- here
	}
	return nil
}

// However much came in that nobody took, a mesh that was never run closes, and leaves no stream open.
func TestClosingDoesNotWaitForReaders(t *testing.T) {
	const late = 400
	inner := &lateTransport{packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), late: late, others: make(chan net.Conn, late)}
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Cluster, cfg.Log, cfg.Transport = "n", "late", logTo(t.Output(), "n"), inner
	cfg.AdvertiseAddr = "127.0.0.1"
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close does not return")
	}
	for range late {
		other := <-inner.others
		_ = other.SetReadDeadline(time.Now().Add(5 * time.Second)) // refused where the stream is closed
		if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a stream is still open: %v", err)
		}
	}
}
