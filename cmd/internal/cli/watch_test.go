package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stream answers a watch with some lines and then as the test says.
func stream(t *testing.T, text string, then func(*http.Request)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
		then(r)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

const someEvents = `{"time":"2026-11-21T10:00:00.5Z","what":"begin","node":"a","nodes":3}
{"time":"2026-11-21T10:00:01Z","what":"set","node":"b","key":"task/f/t","version":4,"size":9,"summary":"TASK_RUNNING web\u001b[2J"}
{"time":"2026-11-21T10:00:02Z","what":"heartbeat"}
{"time":"2026-11-21T10:00:03Z","what":"delete","node":"b","key":"task/f/t"}
{"time":"2026-11-21T10:00:03Z","what":"new","node":"c","state":"alive"}
{"time":"2026-11-21T10:00:03Z","what":"state","node":"c","state":"dead","was":"suspect"}
{"time":"2026-11-21T10:00:03Z","what":"restart","node":"c"}
{"time":"2026-11-21T10:00:03Z","what":"reaped","node":"c"}
{"time":"2026-11-21T10:00:03Z","what":"lagged"}
{"time":"2026-11-21T10:00:03Z","what":"novel","node":"c","summary":"thing"}
`

// cutOff answers with some lines, and then says nothing.
type cutOff struct{}

func (cutOff) RoundTrip(r *http.Request) (*http.Response, error) {
	out, in := io.Pipe()
	go func() {
		_, _ = io.WriteString(in, someEvents)
		<-r.Context().Done()
		in.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: out, Request: r}, nil
}

// A node that was cut off says nothing. That is noticed after a while, which the lines before it have in full, each of them.
func TestSilenceEndsAWatch(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // with more, the race detector breaks down now and then in a bubble's timers (golang.org/issue/78156)
	synctest.Test(t, func(t *testing.T) {
		c := newClient([]string{"192.0.2.1:5051"})
		c.http.Transport = cutOff{}
		begun, n := time.Now(), 0
		err := c.lines(t.Context(), "/mesh/watch", time.Minute, func([]byte) error {
			n++
			time.Sleep(time.Second)
			return nil
		})
		if took := time.Since(begun); err == nil || !strings.Contains(err.Error(), "192.0.2.1:5051 has said nothing for 1m0s") || n != 10 || took != 69*time.Second {
			t.Errorf("lines = %v after %d lines and %v", err, n, took)
		}
	})
}

// untilLines is a writer that ends a context once it has that many lines.
type untilLines struct {
	got bytes.Buffer
	n   int
	end func()
}

func (u *untilLines) Write(p []byte) (int, error) {
	n, err := u.got.Write(p)
	if strings.Count(u.got.String(), "\n") >= u.n {
		u.end()
	}
	return n, err
}

func TestWatchPrintsALineForEachChange(t *testing.T) {
	addr := stream(t, someEvents, func(r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &untilLines{n: 9, end: cancel}
	var errs bytes.Buffer
	code := Mesh(ctx, Streams{Out: out, Err: &errs}, []string{"watch", "--agent", addr}, nil)
	want := `2026-11-21T10:00:00.500Z  3 nodes are known to a; changes from here on
2026-11-21T10:00:01.000Z  b  task/f/t: TASK_RUNNING web\x1b[2J
2026-11-21T10:00:03.000Z  b  task/f/t is gone
2026-11-21T10:00:03.000Z  c  is new, alive
2026-11-21T10:00:03.000Z  c  is dead, was suspect
2026-11-21T10:00:03.000Z  c  has started anew
2026-11-21T10:00:03.000Z  c  is forgotten
2026-11-21T10:00:03.000Z  changes came faster than they were read, and some are missing here
2026-11-21T10:00:03.000Z  c  novel thing
`
	if got := out.got.String(); got != want || code != 0 || errs.Len() > 0 {
		t.Errorf("code %d, %q\n%s\nwant\n%s", code, &errs, got, want)
	}
}

func TestWatchAsJSONPrintsLines(t *testing.T) {
	addr := stream(t, someEvents, func(*http.Request) {})
	out, errs, code := mesh(t, nil, "watch", "--agent", addr, "-o", "json")
	if lines := strings.Split(out, "\n"); len(lines) != 10 || lines[1] != strings.Split(someEvents, "\n")[1] || strings.Contains(out, "heartbeat") {
		t.Errorf("%s", out)
	}
	if code != 1 || !strings.Contains(errs, "ended the stream") {
		t.Errorf("code %d, %q; want 1, as the node went away", code, errs)
	}
}

func TestWatchSaysWhyItEnds(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"hello\n", "does not answer as one of the mesh does"},
		{`{"what":"refused","summary":"32 others"}` + "\n", "the node refuses: 32 others"},
	} {
		addr := stream(t, tc.text, func(*http.Request) {})
		if _, errs, code := mesh(t, nil, "watch", "--agent", addr); code != 1 || !strings.Contains(errs, tc.want) {
			t.Errorf("%q: code %d, %q; want %q", tc.text, code, errs, tc.want)
		}
	}
	addr := stream(t, someEvents, func(r *http.Request) { <-r.Context().Done() })
	// Before an answer too, Ctrl-C is no failure.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if code := Mesh(ended, Streams{Out: io.Discard, Err: io.Discard}, []string{"watch", "--agent", addr}, nil); code != 0 {
		t.Errorf("interrupted watch: code %d, want 0", code)
	}
	if code := Mesh(ended, Streams{Out: io.Discard, Err: io.Discard}, []string{"members", "--agent", addr}, nil); code != 1 {
		t.Errorf("interrupted members: code %d, want 1", code)
	}
}
