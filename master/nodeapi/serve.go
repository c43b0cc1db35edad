package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/proto"
)

// Request is what a server received on PathCall or PathReport, without the ties of any HTTP library.
type Request struct {
	// Method and Path are as the client sent them, the path without a query.
	Method, Path string
	// Header returns the first value of a header, or an empty string. It is not called after the answer was made.
	Header func(name string) string
	// Body is not kept after the answer was made, but what is decoded from it may share its memory: it must not be reused.
	Body []byte
}

// Response is what the server has to answer.
type Response struct {
	Status int
	// Header holds all headers to set, Content-Type included; at most five.
	Header map[string]string
	// Body belongs to the caller.
	Body []byte
	// Err is why the status is not 200, for the log; where the status is 500, the body does not tell.
	Err error
}

// ServeCall answers one request on PathCall: it authenticates and decodes, lets handle decide, and encodes. A nil v checks
// nothing. The call that handle gets has passed Call validation (see DecodeCall); the epoch and the agent id are handle's
// to judge.
func ServeCall(ctx context.Context, v *Verifier, r Request, handle func(context.Context, *Call) (*Reply, error)) Response {
	return serve(v, r, func() (proto.Message, error) {
		call, err := DecodeCall(r.Body)
		if err != nil {
			return nil, err
		}
		return handle(ctx, call)
	})
}

// ServeReport is ServeCall for requests on PathReport.
func ServeReport(ctx context.Context, v *Verifier, r Request, handle func(context.Context, *Report) error) Response {
	return serve(v, r, func() (proto.Message, error) {
		report, err := DecodeReport(r.Body)
		if err != nil {
			return nil, err
		}
		return &ReportReply{}, handle(ctx, report)
	})
}

func serve(v *Verifier, r Request, handle func() (proto.Message, error)) Response {
	if r.Method != http.MethodPost {
		err := fmt.Errorf("%w: method is %q", ErrMalformed, r.Method)
		return Response{
			Status: http.StatusMethodNotAllowed, Err: err, Body: []byte(err.Error()),
			Header: map[string]string{"Content-Type": "text/plain; charset=utf-8", "Allow": http.MethodPost},
		}
	}
	var with seal
	if v != nil {
		var err error
		if with, err = v.verify(r); err != nil {
			return respond(v, with, nil, err)
		}
	}
	if len(r.Body) > MaxBody {
		return respond(v, with, nil, ErrTooLarge)
	}
	m, err := handle()
	if err != nil {
		return respond(v, with, nil, err)
	}
	body, err := proto.Marshal(m)
	if err == nil && len(body) > MaxBody {
		err = fmt.Errorf("answer has %d bytes, %d are allowed", len(body), MaxBody)
	}
	return respond(v, with, body, err)
}

// respond seals whatever answers a request that had the key, refusals included: a forged one could depose a leader.
func respond(v *Verifier, with seal, body []byte, err error) Response {
	status, text := Status(err)
	resp := Response{Status: status, Header: map[string]string{"Content-Type": ContentType}, Body: body, Err: err}
	if err != nil {
		resp.Header["Content-Type"] = "text/plain; charset=utf-8"
		resp.Body = []byte(text)
	}
	var epoch string
	if stale, ok := errors.AsType[*StaleEpochError](err); ok && status == http.StatusConflict {
		epoch = strconv.FormatUint(stale.Known, 10)
		resp.Header[headerEpoch] = epoch
	}
	if v != nil && with.nonce != "" && (err == nil || isTime(err) || !errors.Is(err, ErrUnauthenticated)) {
		resp.Header[headerTime], resp.Header[headerMAC] = with.headers(v.now(), status, epoch, resp.Body)
	}
	return resp
}
