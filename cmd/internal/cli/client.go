package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// The ports of nodes, where none is given.
const (
	portAgent  = "5051"
	portMaster = "5050"
	portDNS    = "8123"
)

// localNodes are asked in turn where no node is named.
var localNodes = []string{"127.0.0.1:" + portAgent, "127.0.0.1:" + portMaster, "127.0.0.1:" + portDNS}

const (
	dialTimeout   = 3 * time.Second
	answerTimeout = 15 * time.Second // until the head of an answer
	wholeTimeout  = time.Minute      // until its end, streams apart
	maxAnswer     = 256 << 20        // bytes
	maxRefusal    = 4 << 10          // bytes of the text of an error
	maxLine       = 1 << 20          // bytes of a line of a stream
)

// client asks one node: the first of its addresses at which anybody listens.
type client struct {
	nodes []string
	http  *http.Client
}

func newClient(nodes []string) *client {
	return &client{nodes: nodes, http: &http.Client{
		Transport: &http.Transport{
			// No proxy: what is asked for is a node nearby, often this machine.
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, ResponseHeaderTimeout: answerTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// get asks for a path and returns the answer, decoded into v too unless that is nil.
func (c *client) get(ctx context.Context, path string, v any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s stopped in the middle of its answer: %w", res.Request.Host, reason(err))
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", res.Request.Host, maxAnswer)
	}
	if v == nil {
		return body, nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("%s does not answer as a node of the mesh does: %w", res.Request.Host, err)
	}
	return body, nil
}

// lines asks for a stream and calls each with every line of it, until ctx ends (then the error is nil), the stream does, or
// nothing has come for longer than silence.
func (c *client) lines(ctx context.Context, path string, silence time.Duration, each func(line []byte) error) error {
	patience, giveUp := context.WithCancel(ctx)
	defer giveUp()
	res, err := c.do(patience, http.MethodGet, path, nil)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer res.Body.Close()
	quiet := time.AfterFunc(silence, giveUp)
	defer quiet.Stop()
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		quiet.Reset(silence)
		if err := each(in.Bytes()); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case patience.Err() != nil:
		return fmt.Errorf("%s has said nothing for %v", res.Request.Host, silence)
	case in.Err() != nil:
		return fmt.Errorf("%s broke off: %w", res.Request.Host, reason(in.Err()))
	}
	return fmt.Errorf("%s ended the stream", res.Request.Host)
}

// do sends a request and returns a successful answer, whose body the caller closes.
func (c *client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	var tried []string
	for _, node := range c.nodes {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+node+path, strings.NewReader(string(body)))
		if err != nil {
			return nil, fmt.Errorf("cannot ask %s: %w", node, err)
		}
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		res, err := c.http.Do(req)
		var dial *net.OpError
		switch {
		case err == nil:
			return checked(res)
		case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, ctx.Err()
		case errors.As(err, &dial) && dial.Op == "dial":
			tried = append(tried, fmt.Sprintf("%s (%v)", node, reason(err)))
		default:
			return nil, fmt.Errorf("%s does not answer: %w", node, reason(err))
		}
	}
	if len(tried) == 1 {
		return nil, fmt.Errorf("cannot reach %s", tried[0])
	}
	return nil, fmt.Errorf("no node answers on this machine: tried %s; name one with --agent HOST:PORT", strings.Join(tried, ", "))
}

// checked turns an answer that is no success into an error.
func checked(res *http.Response) (*http.Response, error) {
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusAccepted {
		return res, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	said := strings.TrimSpace(string(text))
	if said == "" {
		said = "nothing more"
	}
	return nil, &refusal{node: res.Request.Host, status: res.StatusCode, said: said}
}

// refusal is an answer that is no success.
type refusal struct {
	node   string
	status int
	said   string
}

// Error is what the node said.
func (r *refusal) Error() string { return fmt.Sprintf("%s answers %d: %s", r.node, r.status, r.said) }

// reason says in short why there was no answer.
func reason(err error) error {
	var number syscall.Errno
	var timeout interface{ Timeout() bool }
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		return fmt.Errorf("cannot resolve %q", name.Name)
	case errors.As(err, &number):
		return number
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("timeout")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it closed the connection")
	}
	return err
}
