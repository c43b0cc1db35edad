package nodeapi

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// clock is a wall clock that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func signed(s *Signer, body string) Request {
	_, c, nonce, sum := s.sign(http.MethodPost, PathCall, []byte(body), 0)
	h := http.Header{}
	h.Set(headerTime, c)
	h.Set(headerNonce, nonce)
	h.Set(headerMAC, sum)
	return Request{Method: http.MethodPost, Path: PathCall, Header: h.Get, Body: []byte(body)}
}

func TestVerify(t *testing.T) {
	key := []byte("secret")
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		change func(*Request, *clock)
		// ok: nothing; time: may be signed again; none: refused for good
		want string
	}{
		{"an honest request passes", func(*Request, *clock) {}, "ok"},
		{"another body", func(r *Request, _ *clock) { r.Body = []byte("other") }, "none"},
		{"another path", func(r *Request, _ *clock) { r.Path = PathReport }, "none"},
		{"another method", func(r *Request, _ *clock) { r.Method = http.MethodPut }, "none"},
		{"another time", func(r *Request, _ *clock) { override(r, headerTime, "1") }, "none"},
		{"another nonce", func(r *Request, _ *clock) { override(r, headerNonce, "AAAAAAAAAAAAAAAAAAAAAA") }, "none"},
		{"no signature", func(r *Request, _ *clock) { override(r, headerMAC, "") }, "none"},
		{"a signature that is not base64", func(r *Request, _ *clock) { override(r, headerMAC, "!") }, "none"},
		{"at the end of the window", func(_ *Request, c *clock) { c.t = c.t.Add(Window) }, "ok"},
		{"after the window", func(_ *Request, c *clock) { c.t = c.t.Add(Window + time.Millisecond) }, "time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &clock{at}
			v, s := NewVerifier(OneKey(key), c.now), NewSigner(OneKey(key), c.now)
			r := signed(s, "body")
			tt.change(&r, c)
			_, err := v.verify(r)
			got := "none"
			switch {
			case err == nil:
				got = "ok"
			case isTime(err):
				got = "time"
			}
			if got != tt.want {
				t.Errorf("want %q, got %q (%v)", tt.want, got, err)
			}
			if err != nil && !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("want %v, got %v", ErrUnauthenticated, err)
			}
		})
	}
}

func override(r *Request, name, value string) {
	h := r.Header
	r.Header = func(n string) string {
		if n == name {
			return value
		}
		return h(n)
	}
}

func TestARequestIsTakenOnce(t *testing.T) {
	c := &clock{time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	key := []byte("secret")
	v, s := NewVerifier(OneKey(key), c.now), NewSigner(OneKey(key), c.now)
	v.cap = 8
	var all []Request
	for range 100 {
		c.t = c.t.Add(time.Second)
		r := signed(s, "body")
		if _, err := v.verify(r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
		if len(v.seen) > v.cap || len(v.order) != len(v.seen) {
			t.Fatalf("want at most %d nonces, got %d and %d", v.cap, len(v.seen), len(v.order))
		}
	}
	for i, r := range all {
		if _, err := v.verify(r); err == nil {
			t.Errorf("request %d was taken twice", i)
		}
	}
}

// What an earlier life of the process took must not be taken again by the next, which remembers nothing.
func TestRequestsFromBeforeTheStartAreRefusedForTheirTime(t *testing.T) {
	c := &clock{time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	key := []byte("secret")
	s := NewSigner(OneKey(key), c.now)
	r := signed(s, "body")
	c.t = c.t.Add(time.Second)
	v := NewVerifier(OneKey(key), c.now)
	if _, err := v.verify(r); !isTime(err) {
		t.Errorf("want %v, got %v", errTime, err)
	}
	if _, err := v.verify(signed(s, "body")); err != nil {
		t.Errorf("a request of now: %v", err)
	}
}

func TestFieldsDoNotRunTogether(t *testing.T) {
	key := []byte("k")
	if string(mac(key, []byte("ab"), []byte("c"))) == string(mac(key, []byte("a"), []byte("bc"))) {
		t.Error("want different sums for different fields")
	}
}

func TestAnEmptyKeyIsOff(t *testing.T) {
	if NewSigner(OneKey(nil), nil) != nil || NewSigner(OneKey([]byte{}), nil) != nil || NewVerifier(OneKey(nil), nil) != nil {
		t.Error("want nil")
	}
}

// While the cluster's key is replaced, two nodes may be a step apart: the calls between them go on, and each answer is sealed with
// the key of its request, even where that key went while the request was being answered.
func TestTwoKeys(t *testing.T) {
	a, b, c := []byte("secret a"), []byte("secret b"), []byte("secret c")
	keys := func(all ...[]byte) Keys { return func() [][]byte { return all } }
	for _, tt := range []struct {
		name             string
		signer, verifier Keys
		ok               bool
	}{
		{"before", keys(a), keys(a), true},
		{"the receiver has installed", keys(a), keys(a, b), true},
		{"the sender has installed", keys(a, b), keys(a), true},
		{"the receiver uses", keys(a, b), keys(b, a), true},
		{"the sender uses", keys(b, a), keys(a, b), true},
		{"the receiver has removed", keys(b, a), keys(b), true},
		{"the sender has removed", keys(b), keys(b, a), true},
		{"after", keys(b), keys(b), true},
		{"the old key when it was removed", keys(a), keys(b), false},
		{"a key that was never there", keys(c), keys(b, a), false},
		{"a receiver without keys", keys(a), keys(), false},
		{"a sender without keys", keys(), keys(a, b), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := NewVerifier(tt.verifier, nil)
			with, err := v.verify(signed(NewSigner(tt.signer, nil), "body"))
			if got := err == nil; got != tt.ok || got != (with.key != nil) {
				t.Errorf("accepted: %v (%v), want %v", got, err, tt.ok)
			}
			if tt.ok && string(with.key) != string(derive(tt.signer()[0])) {
				t.Error("the answer is not sealed with the key of the request")
			}
		})
	}

	installed := [][]byte{a, b}
	v := NewVerifier(func() [][]byte { return installed }, nil)
	signer := NewSigner(OneKey(a), nil)
	key, clock, nonce, sum := signer.sign(http.MethodPost, PathCall, []byte("body"), 0)
	h := http.Header{}
	h.Set(headerTime, clock)
	h.Set(headerNonce, nonce)
	h.Set(headerMAC, sum)
	r := Request{Method: http.MethodPost, Path: PathCall, Header: h.Get, Body: []byte("body")}
	response := serve(v, r, func() (proto.Message, error) {
		installed = [][]byte{b} // while the call is carried out
		return &Reply{}, nil
	})
	want := encoding.EncodeToString(replyMAC(key, nonce, http.StatusOK, response.Header[headerTime], "", response.Body))
	if got := response.Header[headerMAC]; got != want {
		t.Errorf("seal %q, want %q, that of the request's key", got, want)
	}
	installed = [][]byte{b, a}
	if _, err := v.verify(r); !errors.Is(err, ErrUnauthenticated) || isTime(err) {
		t.Errorf("taken again under another order of the keys: %v", err)
	}
}
