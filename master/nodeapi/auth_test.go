package nodeapi

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// clock is a wall clock that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func signed(s *Signer, body string) Request {
	c, nonce, sum := s.sign(http.MethodPost, PathCall, []byte(body), 0)
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
			v, s := NewVerifier(key, c.now), NewSigner(key, c.now)
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
	v, s := NewVerifier(key, c.now), NewSigner(key, c.now)
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
	s := NewSigner(key, c.now)
	r := signed(s, "body")
	c.t = c.t.Add(time.Second)
	v := NewVerifier(key, c.now)
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
	if NewSigner(nil, nil) != nil || NewSigner([]byte{}, nil) != nil || NewVerifier(nil, nil) != nil {
		t.Error("want nil")
	}
}
