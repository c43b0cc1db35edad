package sandbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Head is the head of an output file, off which the rotator cuts. A nil one is that of a file which nobody cuts.
type Head struct {
	files int // that are kept, itself included

	mu sync.Mutex
	// cut is how many bytes were cut off so far, and kept how many of the last of them are in the files put aside.
	cut, kept int64
	// moving is there while some are being cut off, and closed by who does it.
	moving chan struct{}
}

// move says that a cut begins: until it is over nobody can tell where a byte stands.
func (h *Head) move() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moving = make(chan struct{})
}

// moved says that it is over, and how many bytes are gone from the file. kept tells that they were put aside.
func (h *Head) moved(n int64, kept bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut += n
	if h.kept += n; !kept {
		h.kept = 0
	}
	close(h.moving)
	h.moving = nil
}

// settled waits until nothing is being cut off.
func (h *Head) settled(ctx context.Context) (cut, kept int64, err error) {
	if h == nil {
		return 0, 0, ctx.Err()
	}
	for {
		h.mu.Lock()
		cut, kept, moving := h.cut, h.kept, h.moving
		h.mu.Unlock()
		if moving == nil {
			return cut, kept, ctx.Err()
		}
		select {
		case <-moving:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

// since reports whether something was cut off since so much was, or is being cut off.
func (h *Head) since(cut int64) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.moving != nil || h.cut != cut
}

// Follower reads what is appended to an output file from a moment on. Rotation makes it neither miss a byte that is still in
// one of the files nor read one twice; a file that was emptied or replaced by its container is read from its start.
type Follower struct {
	open func(path string) (*os.File, fs.FileInfo, error)
	path string
	head *Head

	file fs.FileInfo
	// at is where it reads next, counted from the first byte of the file when nothing was cut off it yet.
	at int64
}

// Follow follows a file from its present end on, or from its start if it is not there yet.
func (l Layout) Follow(ctx context.Context, path string, head *Head) (*Follower, error) {
	f := &Follower{open: l.Open, path: path, head: head}
	for {
		cut, _, err := head.settled(ctx)
		if err != nil {
			return nil, err
		}
		f.at, f.file = cut, nil
		if file, info, err := f.open(path); err == nil {
			file.Close()
			f.file, f.at = info, cut+info.Size()
		}
		if !head.since(cut) {
			return f, nil
		}
	}
}

// Read reads what was appended since the last time. io.EOF is for nothing at present.
func (f *Follower) Read(ctx context.Context, buf []byte) (int, error) {
	for {
		cut, kept, err := f.head.settled(ctx)
		if err != nil {
			return 0, err
		}
		at, was := f.at, f.file
		var n int
		if at = max(at, cut-kept); at < cut {
			n, at, err = f.readAside(buf, at, cut)
		} else {
			n, at, err = f.readFile(buf, at, cut)
		}
		if f.head.since(cut) {
			f.file = was
			continue // what was read may have stood elsewhere
		}
		f.at = at + int64(n)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// readAside reads from the files put aside, the newest of which ends where the file begins. What is in none of them any more
// is passed over. It returns where it has read.
func (f *Follower) readAside(buf []byte, at, cut int64) (int, int64, error) {
	end := cut
	for i := 1; i < f.head.files; i++ {
		file, info, err := f.open(oldName(f.path, i))
		if errors.Is(err, ErrNotFound) {
			break
		} else if err != nil {
			return 0, at, err
		}
		begin := end - info.Size()
		if at < begin {
			file.Close()
			end = begin
			continue
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), end-at)], at-begin)
		file.Close()
		if n > 0 {
			err = nil
		}
		return n, at, err
	}
	return 0, end, nil
}

// readFile reads from the file itself.
func (f *Follower) readFile(buf []byte, at, cut int64) (int, int64, error) {
	file, info, err := f.open(f.path)
	if errors.Is(err, ErrNotFound) {
		return 0, at, io.EOF
	} else if err != nil {
		return 0, at, err
	}
	defer file.Close()
	if f.file != nil && !os.SameFile(f.file, info) || info.Size() < at-cut {
		at = cut
	}
	f.file = info
	n, err := file.ReadAt(buf, at-cut)
	if n > 0 {
		err = nil
	}
	return n, at, err
}
