package nodeapi

import (
	"errors"
	"fmt"
	"net/http"
)

// What a peer may answer, beside success. The text in parentheses is the HTTP status that carries it.
var (
	// ErrStaleEpoch: the agent has obeyed a higher epoch; the caller no longer leads (409). See StaleEpochError.
	ErrStaleEpoch = errors.New("epoch is stale")
	// ErrWrongAgent: the call was meant for another agent, so the address is out of date (421).
	ErrWrongAgent = errors.New("call is meant for another agent")
	// ErrNotLeading: the report reached a master that does not lead, or leads under another epoch (503).
	ErrNotLeading = errors.New("master does not lead")
	// ErrUnauthenticated: the signature is missing, wrong, used before, or outside of the time window (401).
	ErrUnauthenticated = errors.New("request is not authenticated")
	// ErrMalformed: the message does not decode or lacks what it must have (400). Sending it again is useless.
	ErrMalformed = errors.New("message is malformed")
	// ErrTooLarge: the message is larger than MaxBody (413).
	ErrTooLarge = errors.New("message is too large")
)

// statuses maps both ways; the order matters to Status alone, where an error wraps two of them.
var statuses = []struct {
	err  error
	code int
}{
	{ErrUnauthenticated, http.StatusUnauthorized},
	{ErrMalformed, http.StatusBadRequest},
	{ErrTooLarge, http.StatusRequestEntityTooLarge},
	{ErrWrongAgent, http.StatusMisdirectedRequest},
	{ErrStaleEpoch, http.StatusConflict},
	{ErrNotLeading, http.StatusServiceUnavailable},
}

// StaleEpochError is an ErrStaleEpoch that tells the epoch which the agent knows, so that a leader that was elected from
// a rebuilt store can be raised above it.
type StaleEpochError struct {
	// Known is the highest epoch that the agent has obeyed.
	Known uint64
}

// Error implements error.
func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("epoch is stale: the agent has obeyed %d", e.Known)
}

// Is makes errors.Is(e, ErrStaleEpoch) true.
func (e *StaleEpochError) Is(target error) bool { return target == ErrStaleEpoch }

// Status returns the HTTP status that carries err, and the sentence to send along. An error of no class that this
// protocol knows is 500 and a sentence that gives nothing away; nil is 200 and no sentence.
func Status(err error) (code int, text string) {
	if err == nil {
		return http.StatusOK, ""
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.code, err.Error()
		}
	}
	return http.StatusInternalServerError, "internal error"
}

// Refusal is what Client returns when the peer answered with anything but 200. It wraps the error of this package that the
// status stands for, if there is one.
type Refusal struct {
	// Addr is who answered.
	Addr string
	// Status is the HTTP status.
	Status int
	// Text is the sentence that came with it, cut at 512 bytes.
	Text string
	err  error
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("node %q refused with status %d: %s", r.Addr, r.Status, r.Text)
}

// Unwrap returns the class of the refusal, nil for a status that stands for none.
func (r *Refusal) Unwrap() error { return r.err }

// refusal turns an answer back into what Status made it from.
func refusal(addr string, status int, text string, known uint64) *Refusal {
	const most = 512
	if len(text) > most {
		text = text[:most]
	}
	r := &Refusal{Addr: addr, Status: status, Text: text}
	for _, s := range statuses {
		if s.code == status {
			r.err = s.err
		}
	}
	if status == http.StatusConflict && known > 0 {
		r.err = &StaleEpochError{Known: known}
	}
	return r
}
