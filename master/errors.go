package master

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLeading is returned for whatever only a leader may do, by a master that does not lead.
	ErrNotLeading = errors.New("this master does not lead")
	// ErrRecovering is returned by a master that was just elected and has not read its documents yet.
	ErrRecovering = errors.New("Master has not finished recovery")
	// ErrBusy is returned while more waits for the store than can be remembered: it does not answer.
	ErrBusy = errors.New("too many writes wait for the store")
	// ErrStopped is returned once the master's Run has ended, or before it began.
	ErrStopped = errors.New("the master is not running")
)

// Kind is the class of a Refusal.
type Kind uint8

// The values of Kind.
const (
	// Invalid is a call that could never be right.
	Invalid Kind = iota
	// Forbidden is a call that this caller may not make now.
	Forbidden
	// Conflict is a call that the present state does not allow.
	Conflict
	// NotFound names something that does not exist.
	NotFound
	// Unavailable is a call that may be repeated once something that is under way is over.
	Unavailable
	// Unsupported is a call that this software does not serve.
	Unsupported
)

// Refusal is an error meant for the caller: its text goes out as it is.
type Refusal struct {
	Kind Kind
	Text string
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

func refuse(kind Kind, format string, args ...any) *Refusal {
	return &Refusal{Kind: kind, Text: fmt.Sprintf(format, args...)}
}
