package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"starling/marathon"
)

// listener is a URL that takes events.
type listener struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newListener(t *testing.T) *listener {
	l := new(listener)
	l.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %q: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen = append(l.seen, string(body))
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.seen, "\n"), text)
}

func TestSubscriptions(t *testing.T) {
	flag, one := newListener(t), newListener(t)
	r := newMarathonRig(t, func(c *marathon.Config) { c.Callbacks.On, c.Callbacks.URLs = true, []string{flag.URL} })
	const path = "/v2/eventSubscriptions"
	if got := r.want(200, "GET", path, "").body; got != `{"callbackUrls":["`+flag.URL+`"]}` {
		t.Errorf("at first %s", got)
	}
	for _, bad := range []string{"", "x", "ftp://h/", "http://", "http://h/" + strings.Repeat("x", 3000), "http://[::1"} {
		r.want(422, "POST", path+"?callbackUrl="+url.QueryEscape(bad), "")
	}
	at := path + "?callbackUrl=" + url.QueryEscape(one.URL+"/cb?a=b")
	got := r.want(200, "POST", at, "").json(t)
	if got["eventType"] != "subscribe_event" || got["callbackUrl"] != one.URL+"/cb?a=b" || got["clientIp"] != "127.0.0.1" || got["timestamp"] == nil {
		t.Errorf("subscribed: %v", got)
	}
	r.want(200, "POST", at, "")
	r.eventually("both are told", func() bool { return flag.has("subscribe_event") && one.has("subscribe_event") })
	// A new term knows them from the store.
	r.abdicate()
	if got, want := r.want(200, "GET", path, "").body, `{"callbackUrls":["`+flag.URL+`","`+one.URL+`/cb?a=b"]}`; got != want {
		t.Errorf("in the next term %s, want %s", got, want)
	}
	r.want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"x","instances":0}`)
	r.eventually("both hear of it", func() bool { return flag.has("deployment_success") && one.has("deployment_success") })
	for range 2 { // also when it is unknown
		if got := r.want(200, "DELETE", at, "").json(t); got["eventType"] != "unsubscribe_event" {
			t.Errorf("unsubscribed: %v", got)
		}
	}
	if got := r.want(200, "GET", path, "").body; got != `{"callbackUrls":["`+flag.URL+`"]}` {
		t.Errorf("in the end %s", got)
	}
	off := newRig(t)
	for _, method := range []string{"GET", "POST", "DELETE"} {
		off.want(404, method, at, "")
	}
}
