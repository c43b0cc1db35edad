package mastertest

import (
	"net"
	"testing"
)

// NobodyAt is an address of this machine where connections are refused until the test ends. A port that was only found to be free may
// be another process's by the time that it is asked: this one is taken, by a connection.
func NobodyAt(t testing.TB) *net.TCPAddr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().(*net.TCPAddr)
}
