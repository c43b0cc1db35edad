package supervisor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The wire: a frame is four bytes of length, big endian, and so many bytes of JSON. A client sends requests, each with
// a number above zero, and gets one response with the same number for each, in any order. A response with the number
// zero is an exit that was pushed.
//
// History (fields are added, never given another meaning; unknown ones are ignored):
//
//	1  2026-11  first version; note; launch_millis
const protocolVersion = 1

// maxFrame bounds a frame. The arguments and the environment of a process are limited to 2 MiB by Linux' default, and
// grow by a third on the wire. What needs more room is the list of all containers, with up to two KiB for each.
const maxFrame = 16 << 20

// writeTimeout is how long the other side may take to read what it is sent.
const writeTimeout = 10 * time.Second

const (
	opHello   = "hello"
	opStart   = "start"
	opSignal  = "signal"
	opKill    = "kill"
	opRemove  = "remove"
	opAmend   = "amend"
	opWatch   = "watch"
	opUpgrade = "upgrade"
	opStop    = "stop"
)

type request struct {
	Seq    uint64     `json:"seq"`
	Op     string     `json:"op"`
	ID     string     `json:"id,omitempty"`
	Start  *startWire `json:"start,omitempty"`
	Signal int        `json:"signal,omitempty"`
	// Millis bounds how long a kill waits.
	Millis int64   `json:"millis,omitempty"`
	Exit   *Exit   `json:"exit,omitempty"`
	Argv   strlist `json:"argv,omitempty"`
}

type response struct {
	Seq        uint64      `json:"seq"`
	Error      *Error      `json:"error,omitempty"`
	Hello      *Hello      `json:"hello,omitempty"`
	Container  *Container  `json:"container,omitempty"`
	Containers []Container `json:"containers,omitempty"`
}

// Hello is what a supervisor says of itself.
type Hello struct {
	Protocol int `json:"protocol"`
	PID      int `json:"pid"`
	// Generation counts the re-executions of this process.
	Generation int `json:"generation"`
	// Build tells its program from others, as Build does of a file; empty from one that does not know of that yet.
	Build string `json:"build,omitempty"`
	// Running and Ended count containers.
	Running int `json:"running"`
	Ended   int `json:"ended"`
}

// startWire is a Spec whose strings keep their bytes: JSON itself would replace what is not UTF-8.
type startWire struct {
	Path       []byte      `json:"path"`
	Args       strlist     `json:"args"`
	Env        strlist     `json:"env,omitempty"`
	Dir        []byte      `json:"dir"`
	Stdout     []byte      `json:"stdout,omitempty"`
	Stderr     []byte      `json:"stderr,omitempty"`
	Credential *Credential `json:"credential,omitempty"`
	Cgroups    []string    `json:"cgroups,omitempty"`
	Note       []byte      `json:"note,omitempty"`
	// LaunchMillis is Spec.LaunchWithin.
	LaunchMillis int64 `json:"launch_millis,omitempty"`
}

func (s *Spec) wire() *startWire {
	return &startWire{
		Path: []byte(s.Path), Args: s.Args, Env: s.Env, Dir: []byte(s.Dir),
		Stdout: []byte(s.Stdout), Stderr: []byte(s.Stderr), Credential: s.Credential, Cgroups: s.Cgroups,
		Note: s.Note, LaunchMillis: s.LaunchWithin.Milliseconds(),
	}
}

func (w *startWire) spec(id string) Spec {
	return Spec{
		ID: id, Path: string(w.Path), Args: w.Args, Env: w.Env, Dir: string(w.Dir),
		Stdout: string(w.Stdout), Stderr: string(w.Stderr), Credential: w.Credential, Cgroups: w.Cgroups,
		Note: w.Note, LaunchWithin: time.Duration(w.LaunchMillis) * time.Millisecond,
	}
}

// strlist is a list of strings without zero bytes, each ended by one, written as one base64 string.
type strlist []string

var errUnended = errors.New("list of strings does not end with a zero byte")

func (l strlist) MarshalJSON() ([]byte, error) {
	var b []byte
	for _, s := range l {
		b = append(append(b, s...), 0)
	}
	return json.Marshal(b)
}

func (l *strlist) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	*l = nil
	for len(b) > 0 {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return errUnended
		}
		*l = append(*l, string(b[:i]))
		b = b[i+1:]
	}
	return nil
}

// encodeFrame makes a frame of v.
func encodeFrame(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) > maxFrame {
		return nil, fmt.Errorf("message of %d bytes, %d are allowed", len(body), maxFrame)
	}
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	return append(frame, body...), nil
}

// readFrame reads one frame into v. It allocates as the bytes arrive, so that a length alone costs nothing. io.EOF means
// that the stream ended between two frames.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes, %d are allowed", n, maxFrame)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, n); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(body.Bytes(), v); err != nil {
		return fmt.Errorf("cannot decode frame: %w", err)
	}
	return nil
}
