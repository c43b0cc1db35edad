package server_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"starling/master/mesos/server"
)

// Whoever does not finish its headers loses the connection soon; a body may take longer.
func TestSlowHeaders(t *testing.T) {
	app := server.NewApp(server.Options{HeaderTimeout: 2 * time.Second})
	app.Post("/echo", echo)
	addr, _ := start(t, app)
	dial := func(head string) net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	body := dial("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
	var slow []net.Conn
	for range 100 {
		slow = append(slow, dial("POST /echo HTTP/1.1\r\nHost: h\r\nX-Slow: "))
	}
	for _, conn := range slow {
		// It may also be reset, where what it sent came too late to be read.
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the connection stays: %v", err)
		}
	}
	// It is over for those that began later, and the body is still waited for.
	if _, err := io.WriteString(body, "cd"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(text) != "abcd" || err != nil {
		t.Errorf("got %d %q, %v", resp.StatusCode, text, err)
	}
}
