package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"starling/cmd/internal/flags"
)

const (
	portMarathon    = "8080"
	defaultMarathon = "http://127.0.0.1:" + portMarathon
	// changeTimeout is until the head of the answer to a change, which waits up to 25 s for the store.
	changeTimeout = 40 * time.Second
	maxRedirects  = 3
)

// marathonFlags are those of every command that asks a Marathon.
type marathonFlags struct{ urls, auth string }

func (f *marathonFlags) register(s *flags.Set) {
	s.StringVar(&f.urls, "marathon", defaultMarathon, "the `url` of Marathon, or several with commas between them: the next one is asked where one does not answer, or with 5xx")
	s.StringVar(&f.auth, "marathon-auth", "", "`user:password` for Marathon, where its URL has none; better set by STARLING_MARATHON_AUTH, which others on this machine don't see")
}

// marathon asks one of several Marathons, which are all the same to it: whoever does not lead passes on what it is asked.
type marathon struct {
	urls []*url.URL
	// reads asks, and changes has something changed, which may take longer.
	reads, changes *http.Client
	// foreign tells that it is the one to import from.
	foreign bool
}

func newMarathon(f *marathonFlags) (*marathon, error) {
	m := &marathon{}
	m.reads, m.changes = m.client(answerTimeout), m.client(changeTimeout)
	var auth *url.Userinfo
	if user, password, ok := strings.Cut(f.auth, ":"); ok {
		auth = url.UserPassword(user, password)
	} else if f.auth != "" {
		return nil, errors.New("--marathon-auth is not of the form user:password")
	}
	for text := range strings.SplitSeq(f.urls, ",") {
		u, err := marathonURL(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		if u.User == nil {
			u.User = auth
		}
		m.urls = append(m.urls, u)
	}
	return m, nil
}

// client makes a client that waits so long for the head of an answer. Questions are sent on to where Marathon says, but
// credentials only to a Marathon that was named.
func (m *marathon) client(timeout time.Duration) *http.Client {
	return &http.Client{
		// No proxy, as for nodes.
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, ResponseHeaderTimeout: timeout},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects || via[0].Method != http.MethodGet {
				return http.ErrUseLastResponse
			}
			req.Header.Del("Authorization")
			for _, u := range m.urls {
				if u.Host == req.URL.Host && u.Scheme == req.URL.Scheme {
					authorize(req, u)
					break
				}
			}
			return nil
		},
	}
}

func (m *marathon) close() {
	m.reads.CloseIdleConnections()
	m.changes.CloseIdleConnections()
}

// authorize adds the credentials of a Marathon.
func authorize(req *http.Request, u *url.URL) {
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
}

// marathonURL reads the URL of a Marathon; a host, with or without a port, will do. Errors don't repeat it, since it may hold a
// password.
func marathonURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		address, err := flags.HostPort(text, portMarathon)
		if err != nil {
			return nil, fmt.Errorf("--marathon: %w", err)
		}
		text = "http://" + address
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("--marathon: not the URL of a Marathon; one is such as " + defaultMarathon)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawQuery, u.Fragment = "", ""
	return u, nil
}

// get asks for a path and returns the answer, decoded into v too unless that is nil.
func (m *marathon) get(ctx context.Context, path string, v any) ([]byte, error) {
	return m.ask(ctx, http.MethodGet, path, nil, v)
}

// ask sends a request and returns the answer, decoded into v too unless that is nil.
func (m *marathon) ask(ctx context.Context, method, path string, body []byte, v any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	res, err := m.do(ctx, method, path, body, "application/json")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s stopped in the middle of its answer: %w", res.Request.URL.Host, reason(err))
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", res.Request.URL.Host, maxAnswer)
	case v == nil:
		return answer, nil
	}
	if result, ok := v.(*deploymentResult); ok {
		// Of a pod the body is the definition, or empty.
		defer func() { result.ID = cmp.Or(result.ID, res.Header.Get("Marathon-Deployment-Id")) }()
		if len(answer) == 0 {
			return answer, nil
		}
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return nil, fmt.Errorf("%s does not answer as a Marathon does: %w", res.Request.URL.Host, err)
	}
	return answer, nil
}

// do sends a request to one Marathon after the other, until one answers, and returns a successful answer, whose body the
// caller closes.
func (m *marathon) do(ctx context.Context, method, path string, body []byte, accept string) (*http.Response, error) {
	var tried []string
	var last error
	for _, base := range m.urls {
		res, err := m.at(ctx, base, method, path, body, accept)
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ctx.Err()
		}
		if err == nil {
			return res, nil
		}
		if !again(method, err) {
			return nil, err
		}
		last = err
		tried = append(tried, said(err))
	}
	if len(tried) == 1 {
		if _, answered := errors.AsType[*marathonRefusal](last); answered {
			return nil, last
		}
		if m.foreign {
			return nil, fmt.Errorf("the Marathon to take over from: %w", last)
		}
		return nil, fmt.Errorf("%w; name a Marathon with --marathon URL", last)
	}
	return nil, fmt.Errorf("no Marathon answers: %s", strings.Join(tried, "; "))
}

// again tells whether another Marathon may be asked for the same where one failed. What would do harm if it were done twice, a
// restart, is sent again only where the first has not got it: an answer of a proxy, or of one that waits for its store, may
// come after the deed.
func again(method string, err error) bool {
	var dial *net.OpError
	refused, answered := errors.AsType[*marathonRefusal](err)
	switch {
	case answered && refused.status < http.StatusInternalServerError:
		return false
	case method != http.MethodPost:
		return true
	case answered:
		return false
	}
	return errors.As(err, &dial) && dial.Op == "dial"
}

func (m *marathon) at(ctx context.Context, base *url.URL, method, path string, body []byte, accept string) (*http.Response, error) {
	plain := *base
	plain.User = nil
	req, err := http.NewRequestWithContext(ctx, method, plain.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s: %w", base.Host, err)
	}
	authorize(req, base)
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := m.changes
	if method == http.MethodGet {
		client = m.reads
	}
	res, err := client.Do(req)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return nil, fmt.Errorf("cannot reach %s: %w", base.Host, tagged{reason(err), err})
		}
		return nil, fmt.Errorf("%s does not answer: %w", base.Host, tagged{reason(err), err})
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxMarathonRefusal))
	return nil, newMarathonRefusal(res.Request.URL.Host, res.StatusCode, text)
}

// tagged says in short what an error is, and is that error still.
type tagged struct{ short, whole error }

// Error is the short text.
func (t tagged) Error() string { return t.short.Error() }

// Unwrap returns the whole error.
func (t tagged) Unwrap() error { return t.whole }
