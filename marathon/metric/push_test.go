package metric_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/marathon/metric"
)

func sample(count float64) []metric.Metric {
	return []metric.Metric{
		{Name: "marathon.a.counter", Value: count},
		{Name: "marathon.b c:d.gauge", Kind: metric.KindGauge, Value: 0.5},
		{Name: "marathon.m", Kind: metric.KindMeter, Rates: metric.Rates{Count: int64(count), M1: 0.25}},
	}
}

// datagrams listens for UDP and returns a way to read what has come.
func datagrams(t *testing.T) (address string, next func() string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String(), func() string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 1<<16)
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestStatsD(t *testing.T) {
	address, next := datagrams(t)
	sink := metric.NewStatsD(metric.DialTo("udp", address))
	defer sink.Close()
	send := func(metrics []metric.Metric) {
		t.Helper()
		if err := sink.Send(t.Context(), time.Now(), metrics); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		count float64
		grown string
	}{{7, "7"}, {10, "3"}, {10, "0"}, {2, "2"}} { // the last: it has begun anew
		send(sample(step.count))
		want := "marathon.a.counter:" + step.grown + "|c\nmarathon.b_c_d.gauge:0.5|g\nmarathon.m.count:" + step.grown +
			"|c\nmarathon.m.mean_rate:0|g\nmarathon.m.m1_rate:0.25|g\nmarathon.m.m5_rate:0|g\nmarathon.m.m15_rate:0|g"
		if got := next(); got != want {
			t.Errorf("counter at %v: %q, want %q", step.count, got, want)
		}
	}
	var many []metric.Metric
	for i := range 500 {
		many = append(many, metric.Metric{Name: "marathon.number." + strconv.Itoa(i) + ".gauge", Kind: metric.KindGauge, Value: float64(i)})
	}
	send(many)
	for seen := 0; seen < len(many); {
		packet := next()
		if len(packet) > 1432 {
			t.Errorf("a datagram of %d bytes", len(packet))
		}
		for line := range strings.SplitSeq(packet, "\n") {
			if want := "marathon.number." + strconv.Itoa(seen) + ".gauge:" + strconv.Itoa(seen) + "|g"; line != want {
				t.Fatalf("%q, want %q", line, want)
			}
			seen++
		}
	}
}

func TestGraphiteComesBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sink := metric.NewGraphite(metric.DialTo("tcp", l.Addr().String()), "site one")
	defer sink.Close()
	at := time.Unix(1700000000, 0)
	receive := func() net.Conn {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		lines := bufio.NewScanner(conn)
		for _, want := range []string{
			"site_one.marathon.a.counter 7 1700000000", "site_one.marathon.b_c_d.gauge 0.5 1700000000",
			"site_one.marathon.m.count 7 1700000000",
		} {
			if !lines.Scan() || lines.Text() != want {
				t.Errorf("%q, want %q", lines.Text(), want)
			}
		}
		return conn
	}
	if err := sink.Send(t.Context(), at, sample(7)); err != nil {
		t.Fatal(err)
	}
	conn := receive()
	// The receiver dies with an answer in the air; sooner or later a push fails, and a later one makes a connection anew.
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	deadline := time.Now().Add(10 * time.Second)
	for sink.Send(t.Context(), at, sample(7)) == nil {
		if time.Now().After(deadline) {
			t.Fatal("no push fails though nobody receives")
		}
	}
	if err := sink.Send(t.Context(), at, sample(7)); err != nil {
		t.Fatal(err)
	}
	receive().Close()
}

func TestDatadog(t *testing.T) {
	status := http.StatusAccepted
	var body map[string][]map[string]any
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("DD-API-KEY") != "secret" || r.Method != http.MethodPost {
			t.Errorf("%s with key %q", r.Method, r.Header.Get("DD-API-KEY"))
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
	}))
	defer receiver.Close()
	sink := metric.NewDatadog(receiver.URL, "secret", "here")
	defer sink.Close()
	if err := sink.Send(t.Context(), time.Unix(1700000000, 0), sample(7)); err != nil {
		t.Fatal(err)
	}
	one := body["series"][0]
	if point := one["points"].([]any)[0].([]any); len(body["series"]) != 7 || one["metric"] != "marathon.a.counter" ||
		one["host"] != "here" || point[0] != 1.7e9 || point[1] != 7.0 {
		t.Errorf("body %v", body)
	}
	status = http.StatusForbidden
	if err := sink.Send(t.Context(), time.Now(), sample(7)); err == nil {
		t.Error("a refused push is no error")
	}
}

// A receiver that takes nothing costs its own pushes alone, and each of them a bounded time.
func TestPusherOutlivesItsReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		dials := 0
		sink := metric.NewGraphite(func(context.Context) (net.Conn, error) {
			dials++
			switch dials {
			case 1:
				return ours, nil // nobody reads at the other end
			case 2:
				return nil, errors.New("no route")
			}
			ours, theirs = net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		}, "")
		gathered := 0
		p := metric.Pusher{
			Name: "graphite", Sink: sink, Interval: 4 * time.Second, Now: time.Now, Log: slog.New(slog.DiscardHandler),
			Gather: func() []metric.Metric { gathered++; return sample(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		time.Sleep(21 * time.Second)
		synctest.Wait()
		// At 4 s it hangs until 8 s, at 8 s there is no route, and from 12 s on all is well.
		if gathered < 4 || dials != 3 {
			t.Errorf("%d pushes, %d connections", gathered, dials)
		}
		cancel()
		<-ended
		if _, err := theirs.Write([]byte("x")); err == nil {
			t.Error("the connection is still open")
		}
	})
}
