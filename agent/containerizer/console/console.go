// Package console keeps the terminal of a container: a relay process holds the master, copies what the container writes to
// a file, and passes it on to all that attach over a socket; one of these may write. The relay outlives the agent and the
// supervisor, and ends with the terminal.
//
// The socket has mode 0600, in a folder that belongs to the agent. What the relay sends is the terminal's output as it
// comes; a reader that does not keep up misses some. What it takes are frames: a byte that says what it is, two bytes of
// length, big endian, and so many bytes.
package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The kinds of frames.
const (
	frameInput  = 'i'
	frameResize = 'r'
)

// maxFrame is what a frame holds at most.
const maxFrame = 32 << 10

// ErrTaken is returned for input while somebody else writes.
var ErrTaken = errors.New("somebody else writes to the terminal")

func writeFrame(w io.Writer, kind byte, body []byte) error {
	frame := make([]byte, 3, 3+len(body))
	frame[0] = kind
	binary.BigEndian.PutUint16(frame[1:], uint16(len(body)))
	_, err := w.Write(append(frame, body...))
	return err
}

func readFrame(r io.Reader, buf []byte) (kind byte, body []byte, err error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > maxFrame || n > len(buf) {
		return 0, nil, fmt.Errorf("frame of %d bytes, %d are allowed", n, maxFrame)
	}
	_, err = io.ReadFull(r, buf[:n])
	return head[0], buf[:n], err
}
