package archive

import "io"

// chunkSize and chunks bound what is decompressed ahead of being written: 2 MiB.
const (
	chunkSize = 256 << 10
	chunks    = 8
)

// aheadReader reads in a goroutine of its own, so that decompressing and writing go on side by side. Close ends and waits
// for it.
type aheadReader struct {
	full  chan []byte // closed by the goroutine, after err is set
	empty chan []byte // holds every chunk that is not in use, so sending never waits
	stop  chan struct{}
	err   error // read after full is closed
	chunk []byte
	rest  []byte
}

func readAhead(r io.Reader) *aheadReader {
	a := &aheadReader{full: make(chan []byte, chunks), empty: make(chan []byte, chunks), stop: make(chan struct{})}
	for range chunks {
		a.empty <- make([]byte, chunkSize)
	}
	go a.run(r)
	return a
}

func (a *aheadReader) run(r io.Reader) {
	defer close(a.full)
	for {
		var b []byte
		select {
		case b = <-a.empty:
		case <-a.stop:
			a.err = io.ErrClosedPipe
			return
		}
		n, err := io.ReadFull(r, b)
		if n > 0 {
			a.full <- b[:n]
		}
		if err == io.ErrUnexpectedEOF && n > 0 {
			continue // the next read tells whether this is the end or an error of that kind
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

func (a *aheadReader) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.chunk != nil {
			a.empty <- a.chunk[:chunkSize]
			a.chunk = nil
		}
		b, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.chunk, a.rest = b, b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *aheadReader) Close() {
	close(a.stop)
	for range a.full { // until the goroutine has ended
	}
}
