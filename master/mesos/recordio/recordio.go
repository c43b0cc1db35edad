// Package recordio frames the records of an event stream: the length in decimal digits, a line feed, and that many
// bytes. Nothing follows a record; the next one begins at once. See the specification's mesos-api.md, section 5.1.
package recordio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// DefaultMaxSize is the size in bytes up to which a [Reader] takes a record when none is given: 64 MiB, several times
// the largest event that a cluster of the size we aim at can cause.
const DefaultMaxSize = 64 << 20

// ErrMalformed says that the bytes where a length had to be are none. The stream cannot be read any further.
var ErrMalformed = errors.New("malformed record length")

// TooLargeError says that a record is larger than the reader takes. The stream cannot be read any further.
type TooLargeError struct {
	// Size is the record's, Max the reader's, in bytes.
	Size, Max uint64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("record of %d bytes is larger than %d", e.Size, e.Max)
}

// Append adds a record to dst. The record is copied.
func Append(dst, rec []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(rec)), 10)
	dst = append(dst, '\n')
	return append(dst, rec...)
}

// Reader takes a stream apart. It is for one goroutine.
type Reader struct {
	r   *bufio.Reader
	max uint64
	buf []byte
	err error // what ended the stream; sticky
}

// NewReader reads records of at most maxSize bytes from r; 0 or less means [DefaultMaxSize]. It reads ahead.
func NewReader(r io.Reader, maxSize int) *Reader {
	if maxSize <= 0 {
		maxSize = DefaultMaxSize
	}
	return &Reader{r: bufio.NewReader(r), max: uint64(maxSize)}
}

// Next gives the next record, which is valid until the next call. At the end of the stream it gives io.EOF, and
// io.ErrUnexpectedEOF when the stream ends within a record; ErrMalformed and *TooLargeError are the sender's fault.
// After an error every further call gives the same.
func (r *Reader) Next() ([]byte, error) {
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.buf, nil
}

func (r *Reader) next() error {
	size, err := r.length()
	if err != nil {
		return err
	}
	if size > r.max {
		return &TooLargeError{Size: size, Max: r.max}
	}
	// The buffer grows with what really arrives: a length alone must not cost memory.
	const step = 64 << 10
	r.buf = r.buf[:0]
	for left := int(size); left > 0; {
		n := min(left, max(step, len(r.buf)))
		start := len(r.buf)
		r.buf = append(r.buf, make([]byte, n)...)
		if _, err := io.ReadFull(r.r, r.buf[start:]); err != nil {
			return unexpected(err)
		}
		left -= n
	}
	return nil
}

// length reads the digits and the line feed.
func (r *Reader) length() (uint64, error) {
	var size uint64
	for digits := 0; ; digits++ {
		b, err := r.r.ReadByte()
		switch {
		case err != nil && digits == 0:
			return 0, err
		case err != nil:
			return 0, unexpected(err)
		case b == '\n' && digits > 0:
			return size, nil
		case b < '0' || b > '9' || digits >= 19: // 19 digits always fit
			return 0, fmt.Errorf("%w: unexpected %q", ErrMalformed, b)
		}
		size = size*10 + uint64(b-'0')
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
