package server

import (
	"io"

	"github.com/gofiber/fiber/v2"

	"starling/master/mesos/codec"
)

// WriteSegments answers with JSON that lies in several pieces, which other answers may share: nothing is copied together.
// packed gives the same as one gzip stream, and is called only for a client that takes it. Neither may be modified afterwards.
func WriteSegments(c *fiber.Ctx, plain [][]byte, packed func() ([][]byte, error)) error {
	resp := &c.Context().Response
	c.Set(fiber.HeaderContentType, codec.TypeJSON)
	resp.Header.Add(fiber.HeaderVary, fiber.HeaderAcceptEncoding)
	out := plain
	if acceptsGzip(c.Get(fiber.HeaderAcceptEncoding)) {
		var err error
		if out, err = packed(); err != nil {
			return err
		}
		c.Set(fiber.HeaderContentEncoding, "gzip")
	}
	size := 0
	for _, s := range out {
		size += len(s)
	}
	resp.SetBodyStream(&segments{rest: out}, size)
	return nil
}

// segments reads pieces one after the other.
type segments struct {
	rest [][]byte
	at   int // in the first of rest
}

// Read implements io.Reader.
func (s *segments) Read(p []byte) (int, error) {
	for len(s.rest) > 0 && s.at == len(s.rest[0]) {
		s.rest, s.at = s.rest[1:], 0
	}
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[0][s.at:])
	s.at += n
	return n, nil
}

// WriteTo implements io.WriterTo, which is what the HTTP server uses.
func (s *segments) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for len(s.rest) > 0 {
		n, err := w.Write(s.rest[0][s.at:])
		sum += int64(n)
		if s.at += n; err != nil {
			return sum, err
		}
		s.rest, s.at = s.rest[1:], 0
	}
	return sum, nil
}
