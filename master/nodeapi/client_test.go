package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"starling/master/mesos"
)

// endpoint serves the protocol over net/http, the way the api packages do over their library.
type endpoint struct {
	verifier *Verifier
	call     func(context.Context, *Call) (*Reply, error)
	report   func(context.Context, *Report) error
	// mangle, where set, changes the answer on its way.
	mangle func(*Response)
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	req := Request{Method: r.Method, Path: r.URL.Path, Header: r.Header.Get, Body: body}
	var resp Response
	if r.URL.Path == PathCall {
		resp = ServeCall(r.Context(), e.verifier, req, e.call)
	} else {
		resp = ServeReport(r.Context(), e.verifier, req, e.report)
	}
	if e.mangle != nil {
		e.mangle(&resp)
	}
	for name, value := range resp.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(resp.Status)
	w.Write(resp.Body)
}

// start serves e on loopback and returns its address.
func start(t *testing.T, e *endpoint) string {
	t.Helper()
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func client(t *testing.T, cfg ClientConfig) *Client {
	t.Helper()
	c := NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

func killCall() *Call {
	return &Call{
		Epoch: 7, Leader: "10.0.0.1:5050", AgentId: "a-S0",
		Call: &Call_Kill{Kill: &Kill{
			FrameworkId: &mesos.FrameworkID{Value: proto.String("f")}, TaskId: &mesos.TaskID{Value: proto.String("t")},
		}},
	}
}

func TestCallReachesTheHandlerAndItsReplyReturns(t *testing.T) {
	for name, key := range map[string][]byte{"without a key": nil, "with a key": []byte("secret")} {
		t.Run(name, func(t *testing.T) {
			var got *Call
			addr := start(t, &endpoint{
				verifier: NewVerifier(OneKey(key), nil),
				call: func(_ context.Context, c *Call) (*Reply, error) {
					got = c
					return &Reply{Delta: []byte("delta")}, nil
				},
			})
			reply, err := client(t, ClientConfig{Signer: NewSigner(OneKey(key), nil)}).Call(t.Context(), addr, killCall())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(killCall(), got, protocmp.Transform()); d != "" {
				t.Errorf("call at the handler (-want +got):\n%s", d)
			}
			if d := cmp.Diff(&Reply{Delta: []byte("delta")}, reply, protocmp.Transform()); d != "" {
				t.Errorf("reply (-want +got):\n%s", d)
			}
		})
	}
}

func TestErrorsTravel(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		want   error
		status int
	}{
		{"a stale epoch", fmt.Errorf("call: %w", ErrStaleEpoch), ErrStaleEpoch, 409},
		{"a stale epoch with the one known", &StaleEpochError{Known: 12}, ErrStaleEpoch, 409},
		{"another agent", ErrWrongAgent, ErrWrongAgent, 421},
		{"a master that does not lead", ErrNotLeading, ErrNotLeading, 503},
		{"a malformed message", fmt.Errorf("%w: no task", ErrMalformed), ErrMalformed, 400},
		{"an error of no class", errors.New("disk is on fire"), nil, 500},
	}
	for _, tt := range tests {
		for _, key := range [][]byte{nil, []byte("secret")} {
			t.Run(fmt.Sprintf("%s, key of %d bytes", tt.name, len(key)), func(t *testing.T) {
				addr := start(t, &endpoint{
					verifier: NewVerifier(OneKey(key), nil),
					report:   func(context.Context, *Report) error { return tt.err },
				})
				err := client(t, ClientConfig{Signer: NewSigner(OneKey(key), nil)}).Report(t.Context(), addr, &Report{Epoch: 1, AgentId: "a"})
				refused, ok := errors.AsType[*Refusal](err)
				if !ok {
					t.Fatalf("want a refusal, got %v", err)
				}
				if refused.Status != tt.status {
					t.Errorf("want status %d, got %d", tt.status, refused.Status)
				}
				for _, s := range statuses {
					if got, want := errors.Is(err, s.err), s.err == tt.want; got != want {
						t.Errorf("errors.Is(err, %q): want %v, got %v", s.err, want, got)
					}
				}
				if want, ok := errors.AsType[*StaleEpochError](tt.err); ok {
					got, ok := errors.AsType[*StaleEpochError](err)
					if !ok || got.Known != want.Known {
						t.Errorf("want known epoch %d, got %v", want.Known, got)
					}
				}
				if strings.Contains(err.Error(), "fire") {
					t.Errorf("an internal error was shown to the peer: %v", err)
				}
			})
		}
	}
}

func TestForgedAnswersStandForNoError(t *testing.T) {
	key := []byte("secret")
	tests := []struct {
		name   string
		mangle func(*Response)
	}{
		{"an answer without a seal", func(r *Response) { delete(r.Header, headerMAC) }},
		{"another body", func(r *Response) { r.Body = append(r.Body, 0x0a, 0) }},
		{"another status", func(r *Response) { r.Status = http.StatusConflict }},
		{"another epoch", func(r *Response) { r.Header[headerEpoch] = "99" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr := start(t, &endpoint{
				verifier: NewVerifier(OneKey(key), nil), mangle: tt.mangle,
				call: func(context.Context, *Call) (*Reply, error) { return &Reply{}, nil },
			})
			_, err := client(t, ClientConfig{Signer: NewSigner(OneKey(key), nil)}).Call(t.Context(), addr, killCall())
			if err == nil {
				t.Fatal("want an error, got none")
			}
			if errors.Is(err, ErrStaleEpoch) {
				t.Errorf("a forged answer deposed the leader: %v", err)
			}
		})
	}
}

func TestKeysMustMatch(t *testing.T) {
	reached := false
	addr := start(t, &endpoint{
		verifier: NewVerifier(OneKey([]byte("secret")), nil),
		call: func(context.Context, *Call) (*Reply, error) {
			reached = true
			return &Reply{}, nil
		},
	})
	for name, key := range map[string][]byte{"no key": nil, "another key": []byte("other")} {
		_, err := client(t, ClientConfig{Signer: NewSigner(OneKey(key), nil)}).Call(t.Context(), addr, killCall())
		if !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: want %v, got %v", name, ErrUnauthenticated, err)
		}
	}
	if reached {
		t.Error("an unauthenticated call reached the handler")
	}
}

// A machine without a battery clock starts in 1970; that must cost a round trip, not the node.
func TestWrongClocksCostOneRoundTrip(t *testing.T) {
	key := []byte("secret")
	for _, off := range []time.Duration{-time.Hour, time.Hour, -50 * 365 * 24 * time.Hour, 365 * 24 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			var requests, calls atomic.Int32
			e := &endpoint{
				verifier: NewVerifier(OneKey(key), nil),
				call: func(context.Context, *Call) (*Reply, error) {
					calls.Add(1)
					return &Reply{}, nil
				},
				mangle: func(*Response) { requests.Add(1) },
			}
			addr := start(t, e)
			c := client(t, ClientConfig{Signer: NewSigner(OneKey(key), func() time.Time { return time.Now().Add(off) })})
			for range 3 {
				if _, err := c.Call(t.Context(), addr, killCall()); err != nil {
					t.Fatal(err)
				}
			}
			if calls.Load() != 3 || requests.Load() != 4 {
				t.Errorf("want 3 calls in 4 requests, got %d in %d", calls.Load(), requests.Load())
			}
		})
	}
}

func TestACallEndsWithItsDeadline(t *testing.T) {
	release := make(chan struct{})
	addr := start(t, &endpoint{call: func(context.Context, *Call) (*Reply, error) {
		<-release
		return &Reply{}, nil
	}})
	defer close(release)
	_, err := client(t, ClientConfig{Timeout: 50 * time.Millisecond}).Call(t.Context(), addr, killCall())
	if err == nil {
		t.Fatal("want an error, got none")
	}
	if _, ok := errors.AsType[*Refusal](err); ok {
		t.Errorf("want an error that leaves the outcome open, got %v", err)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL+PathCall, http.StatusTemporaryRedirect))
	defer s.Close()
	_, err := client(t, ClientConfig{}).Call(t.Context(), strings.TrimPrefix(s.URL, "http://"), killCall())
	if refused, ok := errors.AsType[*Refusal](err); !ok || refused.Status != http.StatusTemporaryRedirect {
		t.Errorf("want a refusal with status 307, got %v", err)
	}
	if elsewhere.Load() > 0 {
		t.Error("the redirect was followed")
	}
}

func TestAKeptConnectionThatTheNodeClosedIsReplaced(t *testing.T) {
	e := &endpoint{verifier: NewVerifier(OneKey([]byte("secret")), nil), call: func(context.Context, *Call) (*Reply, error) { return &Reply{}, nil }}
	s := httptest.NewServer(e)
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")
	c := client(t, ClientConfig{Signer: NewSigner(OneKey([]byte("secret")), nil)})
	for i := range 5 {
		if _, err := c.Call(t.Context(), addr, killCall()); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		s.CloseClientConnections()
	}
}

func TestARefusalIsCutAndNamesTheNode(t *testing.T) {
	r := refusal("10.0.0.1:5051", 400, strings.Repeat("x", 4096), 0)
	if len(r.Text) != 512 {
		t.Errorf("want 512 bytes of text, got %d", len(r.Text))
	}
	if got := r.Error(); !strings.Contains(got, "10.0.0.1:5051") {
		t.Errorf("want the address in %q", got)
	}
}
