package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Output is copied from what the engine keeps of it to the files of the sandbox. The engine gives each message with its
// time, and can begin at a time; so the time of the last message, with how much of that time was written, is a place to go on
// from. It is written down after the output itself. What was written in between, when the agent ends there, is what
// stands in the file beyond the size that was written down with the place: as far as the output that comes then is the same, it
// is not written again.
//
// The two outputs are one file of the engine's, in which times may be slightly out of order, and pieces of one long line
// all have the time of the first: both are allowed for in since.
type place struct {
	Out mark `json:"out"`
	Err mark `json:"err"`
	// Last is the time of the last message of either.
	Last int64 `json:"last"`
	Done bool  `json:"done,omitempty"`
}

// mark is how far one of the outputs was copied.
type mark struct {
	// Time is that of the last message, in nanoseconds, and Bytes how much of it, and of others of that time, was written.
	Time  int64 `json:"time"`
	Bytes int64 `json:"bytes"`
	// Max is the latest time of any message so far: clocks may be set back.
	Max int64 `json:"max"`
	// Open is set when that did not end with the end of a line.
	Open bool `json:"open,omitempty"`
	// Size is the size of the file then.
	Size int64 `json:"size"`
}

const (
	// disorder bounds how far times are out of order.
	disorder = 10 * time.Second
	// placeSize is the size of a place on disk, filled up with blanks: it is written by one call.
	placeSize = 400
	// batch is how much output is written at once, and so the most that may be in the file but not in the place, but for one
	// message.
	batch = 64 << 10
	// longestMessage bounds a message of the engine's; drivers split lines far below.
	longestMessage = 16 << 20
	// stampSize is the size of a time with the blank after it.
	stampSize = len("2006-01-02T15:04:05.000000000Z ")
)

// since is from when the engine is asked.
func (p *place) since() time.Time {
	if p.Last == 0 {
		return time.Time{}
	}
	from := p.Last - int64(disorder)
	for _, m := range []mark{p.Out, p.Err} {
		if m.Open {
			from = min(from, m.Time)
		}
	}
	return time.Unix(0, from)
}

// follow copies the output of a container until it has ended and all of it is copied.
func (c *Containerizer) follow(e *entry) {
	f := &follower{c: c, e: e, file: c.files.path(e.id, ".log")}
	if f.run() {
		close(e.copied)
	}
	f.close()
}

// follower copies the output of one container.
type follower struct {
	c     *Containerizer
	e     *entry
	file  string
	place place
	last  int64 // the time of the last message that came
	out   output
	err   output
	disk  *os.File
}

// run reports whether all is copied: otherwise the containerizer ends.
func (f *follower) run() bool {
	c := f.c
	c.mu.Lock()
	r := f.e.record
	c.mu.Unlock()
	if r.Stdout == "" && r.Stderr == "" {
		return true
	}
	if data, err := os.ReadFile(f.file); err == nil {
		if err := json.Unmarshal(data, &f.place); err != nil {
			c.log.Warn("cannot tell how far output was copied, it begins anew", "container_id", f.e.id, "err", err)
		}
	}
	if f.place.Done {
		return true
	}
	f.out = output{path: r.Stdout, mark: &f.place.Out, first: true}
	f.err = output{path: r.Stderr, mark: &f.place.Err, first: true}
	ended, failures := false, 0
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		begun := time.Now()
		err := f.copy(r)
		if c.life.Err() != nil {
			return false
		}
		switch {
		case err == nil && ended, errors.Is(err, errNotFound):
			f.place.Done = true
			f.save()
			return true
		case err != nil && strings.Contains(err.Error(), "does not support reading"):
			f.err.add(0, []byte(fmt.Sprintf("The output of this container is not here: %v\n", err)))
			_ = f.flush()
			f.place.Done = true
			f.save()
			return true
		case err != nil && !errors.Is(err, errAway):
			if failures++; failures != 5 {
				break
			}
			c.log.Warn("cannot copy output, this is tried again", "container_id", f.e.id, "err", err)
		}
		// A stream that ended while the container ran may lack its end, so only what is read after the end counts.
		i, err := c.engine.Inspect(c.life, r.Engine)
		if ended = errors.Is(err, errNotFound) || err == nil && i.ended(); ended {
			continue
		}
		if time.Since(begun) > 10*time.Second {
			wait = 100 * time.Millisecond
		}
		if !c.pause(wait) {
			return false
		}
	}
}

// copy copies what there is until the stream ends.
func (f *follower) copy(r record) error {
	ctx, cancel := context.WithCancel(f.c.life)
	defer cancel()
	body, err := f.c.engine.Logs(ctx, r.Engine, f.place.since())
	if err != nil {
		return err
	}
	defer body.Close()
	for _, o := range []*output{&f.out, &f.err} {
		if err := o.begin(); err != nil {
			return err
		}
	}
	in := bufio.NewReaderSize(body, 4<<10)
	messages := framed
	if r.TTY {
		messages = unframed
	}
	err = messages(in, func(second bool, at int64, text []byte) error {
		o := &f.out
		if second {
			o = &f.err
		}
		o.add(at, text)
		f.last = at
		if in.Buffered() > 0 && len(f.out.pending)+len(f.err.pending) < batch {
			return nil
		}
		return f.flush()
	})
	if e := f.flush(); err == nil || errors.Is(err, io.EOF) {
		err = e
	}
	return err
}

// flush writes what is pending, and then the place.
func (f *follower) flush() error {
	if *f.out.mark == f.out.good && *f.err.mark == f.err.good {
		return nil
	}
	err := errors.Join(f.out.flush(), f.err.flush())
	if err == nil && f.last != 0 {
		f.place.Last = f.last
	}
	f.save()
	return err
}

func (f *follower) save() {
	data, err := json.Marshal(f.place)
	if err == nil && f.disk == nil {
		f.disk, err = os.OpenFile(f.file, os.O_CREATE|os.O_WRONLY, 0o600)
	}
	if err == nil {
		data = append(data, bytes.Repeat([]byte{' '}, max(0, placeSize-len(data)))...)
		_, err = f.disk.WriteAt(data, 0)
	}
	if err != nil {
		f.c.log.Error("cannot write down how far output was copied", "container_id", f.e.id, "err", err)
	}
}

func (f *follower) close() {
	f.out.close()
	f.err.close()
	if f.disk != nil {
		f.disk.Close()
	}
}

// framed reads messages in the frames that the engine puts around outputs: one byte for which, three of nothing, the
// length.
func framed(in *bufio.Reader, each func(second bool, at int64, text []byte) error) error {
	var text []byte
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(head[4:]))
		if head[0] > 3 || n > longestMessage {
			return fmt.Errorf("the Docker engine sends output in frames of kind %d and %d bytes", head[0], n)
		}
		if cap(text) < n {
			text = make([]byte, n)
		}
		text = text[:n]
		if _, err := io.ReadFull(in, text); err != nil {
			return notEnd(err)
		}
		if head[0] == 3 {
			return fmt.Errorf("the Docker engine cannot give all output: %s", text)
		}
		at, err := stamp(text)
		if err != nil {
			return err
		}
		if err := each(head[0] == 2, at, text[stampSize:]); err != nil {
			return err
		}
		if cap(text) > batch {
			text = nil
		}
	}
}

// unframed reads messages of a terminal, which has no frames. A message ends with its line; the pieces of a long one each
// begin with the time, which is the same.
func unframed(in *bufio.Reader, each func(second bool, at int64, text []byte) error) error {
	for {
		head := make([]byte, stampSize)
		if _, err := io.ReadFull(in, head); err != nil {
			return err
		}
		at, err := stamp(head)
		if err != nil {
			return err
		}
		var line []byte
		for end := false; !end; {
			part, err := in.ReadSlice('\n')
			line = append(line, part...)
			switch {
			case err == nil:
				end = true
			case errors.Is(err, bufio.ErrBufferFull):
			default:
				line = bytes.ReplaceAll(line, head, nil)
				if len(line) > 0 {
					if err := each(false, at, line); err != nil {
						return err
					}
				}
				return err
			}
			line = bytes.ReplaceAll(line, head, nil)
			keep := 0
			if !end {
				// A time may be cut at the end of what was read.
				keep = min(len(line), stampSize-1)
			}
			if ready := line[:len(line)-keep]; len(ready) > 0 {
				if err := each(false, at, ready); err != nil {
					return err
				}
			}
			line = append(line[:0], line[len(line)-keep:]...)
		}
	}
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// stamp reads the time at the beginning of a message.
func stamp(text []byte) (int64, error) {
	if len(text) < stampSize {
		return 0, fmt.Errorf("the Docker engine sends output without a time: %.40q", text)
	}
	t, err := time.Parse(time.RFC3339Nano, string(text[:stampSize-1]))
	if err != nil {
		return 0, fmt.Errorf("the Docker engine sends output without a time: %.40q", text)
	}
	return t.UnixNano(), nil
}

// output is one file that output goes to.
type output struct {
	path string
	mark *mark
	file *os.File
	// from is what was copied before the stream began; caught is set when the stream is beyond it. seen counts how much has
	// come of the time latest.
	from         mark
	caught       bool
	seen, latest int64
	// first is set before the first stream of a life; tail is then what is in the file beyond the mark.
	first bool
	tail  []byte
	// good is the mark as of the last write that worked; pending is what came since and is to be written, matched what came
	// and was in tail.
	good             mark
	pending, matched []byte
}

// begin prepares for a stream from the mark.
func (o *output) begin() error {
	o.from, o.good, o.seen, o.latest, o.pending, o.matched = *o.mark, *o.mark, 0, 0, nil, nil
	o.caught = o.from.Time == 0
	if o.path == "" || o.file != nil {
		return nil
	}
	file, err := openSink(o.path)
	if err != nil {
		return err
	}
	o.file = file
	if o.first {
		o.first = false
		o.tail, err = readTail(o.path, o.mark.Size)
	}
	return err
}

// readTail reads what is in a file beyond a size, as much as a batch and a message may be.
func readTail(path string, size int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= size {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(io.NewSectionReader(f, size, info.Size()-size), longestMessage+batch))
}

// add takes a message, and leaves out what was copied before.
func (o *output) add(at int64, text []byte) {
	if !o.caught {
		if at != o.latest {
			o.latest, o.seen = at, 0
		}
		switch {
		case at > o.from.Max:
			o.caught = true
		case at != o.from.Time:
			return
		default:
			n := min(int64(len(text)), o.from.Bytes-o.seen)
			o.seen += n
			o.caught = o.seen == o.from.Bytes
			text = text[n:]
		}
		if len(text) == 0 {
			return
		}
	}
	if at != o.mark.Time {
		o.mark.Time, o.mark.Bytes = at, 0
	}
	o.mark.Max = max(o.mark.Max, at)
	o.mark.Bytes += int64(len(text))
	o.mark.Open = text[len(text)-1] != '\n'
	if len(o.tail) > 0 {
		n := 0
		for n < len(text) && n < len(o.tail) && text[n] == o.tail[n] {
			n++
		}
		if n < len(text) && n < len(o.tail) {
			o.tail = nil // somebody else's
		} else {
			o.tail = o.tail[n:]
		}
		o.matched = append(o.matched, text[:n]...)
		text = text[n:]
	}
	o.pending = append(o.pending, text...)
}

// flush writes what is pending.
func (o *output) flush() error {
	if o.file == nil {
		o.good, o.matched, o.pending = *o.mark, nil, nil
		return nil
	}
	n, err := o.file.Write(o.pending)
	if err != nil {
		// Go back to where all was well, and remember what is in the file from there on.
		*o.mark = o.good
		o.tail = append(append(o.matched, o.pending[:n]...), o.tail...)
		o.pending, o.matched = nil, nil
		return err
	}
	if info, err := o.file.Stat(); err == nil {
		o.mark.Size = info.Size()
	}
	o.good, o.matched, o.pending = *o.mark, nil, o.pending[:0]
	if cap(o.pending) > batch/4 {
		o.pending = nil
	}
	return nil
}

func (o *output) close() {
	if o.file != nil {
		o.file.Close()
	}
}

// openSink opens a file of a sandbox for appending. The folder is the task's own, so what is not a plain file is
// refused, and a link is not followed. A new file gets the owner of the folder.
func openSink(path string) (*os.File, error) {
	const flags = os.O_APPEND | os.O_WRONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil && os.Geteuid() == 0 {
			if top, e := os.Stat(filepath.Dir(path)); e == nil {
				if st, ok := top.Sys().(*syscall.Stat_t); ok {
					err = f.Chown(int(st.Uid), int(st.Gid))
				}
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a plain file", path))
	}
	return f, nil
}
