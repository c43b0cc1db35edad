package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
)

// at is a client of another node.
func (c *client) at(address string) *client { return &client{nodes: []string{address}, http: c.http} }

// operator makes a call of an agent's operator API.
func (c *client) operator(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	answer := &operator.Response{}
	return answer, c.call(ctx, call, answer)
}

// call makes a call of an operator API; a nil answer is for one that has none.
func (c *client) call(ctx context.Context, call, answer proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	res, err := c.post(ctx, call, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s stopped in the middle of its answer: %w", res.Request.Host, reason(err))
	}
	if answer == nil {
		return nil
	}
	if err := codec.Protobuf.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("%s does not answer as an agent or a master does: %w", res.Request.Host, err)
	}
	return nil
}

// post sends a call, and returns an answer that is a success, whose body the caller closes.
func (c *client) post(ctx context.Context, call proto.Message, header http.Header) (*http.Response, error) {
	body, err := codec.Protobuf.Marshal(call)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.nodes[0]+"/api/v1", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s: %w", c.nodes[0], err)
	}
	req.Header.Set("Content-Type", codec.TypeProtobuf)
	req.Header.Set("Accept", codec.TypeProtobuf)
	for name := range header {
		req.Header.Set(name, header.Get(name))
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s does not answer: %w", c.nodes[0], reason(err))
	}
	return checked(res)
}

// isTerminal tells whether something is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// decodeRune tells how long the first character is, and whether it is all there.
func decodeRune(data []byte) (n int, whole bool) {
	if !utf8.FullRune(data) {
		return 1, false
	}
	_, n = utf8.DecodeRune(data)
	return n, true
}
