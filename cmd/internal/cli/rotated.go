package cli

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	operator "starling/master/mesos/operator/agent"
)

// What a task has written is put aside in steps: the head of stdout is copied to .stdout.rotating and cut off, the copy
// becomes stdout.1, and what had that name stdout.2. So an offset means something only for as long as neither has changed.

// aside is a file of what was put aside, which nobody writes to any more: told apart by size and time, whatever its name.
type aside struct {
	size  uint64
	mtime int64
}

// settleEvery and settleFor say how often and for how long a rotation that is under way is waited for; a copy may also be
// left from a crash.
const (
	settleEvery = 10 * time.Millisecond
	settleFor   = 2 * time.Second
)

// errGone is for output that was removed before it could be read.
var errGone = errors.New("some of the output was removed on the node before it was read")

// list returns what was put aside of the file, the newest first.
func (f *remoteFile) list(ctx context.Context) ([]aside, error) {
	dir, name := path.Split(f.path)
	for begun := time.Now(); ; {
		answer, err := f.client.operator(ctx, &operator.Call{
			Type: operator.Call_LIST_FILES.Enum(), ListFiles: &operator.Call_ListFiles{Path: proto.String(path.Clean(dir))},
		})
		if err != nil {
			return nil, err
		}
		byNumber, moving := map[int]aside{}, false
		for _, info := range answer.GetListFiles().GetFileInfos() {
			base := path.Base(info.GetPath())
			moving = moving || base == "."+name+".rotating"
			if text, ok := strings.CutPrefix(base, name+"."); ok {
				if n, err := strconv.Atoi(text); err == nil && n > 0 {
					byNumber[n] = aside{info.GetSize(), info.GetMtime().GetNanoseconds()}
				}
			}
		}
		var files []aside
		for n := 1; ; n++ {
			file, ok := byNumber[n]
			if !ok {
				break
			}
			files = append(files, file)
		}
		// While names change, one of them lacks for a moment.
		if whole := len(files) == len(byNumber); whole && !moving || time.Since(begun) > settleFor {
			return files, nil
		}
		select {
		case <-time.After(settleEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// newerThan tells how many of the files that there are now were put aside after older. Of a single one that is another it is
// taken for granted: no more are kept here.
func newerThan(older, now []aside) (n int, ok bool) {
	if len(older) == 0 || len(now) == 0 {
		return len(now), true
	}
	for n := range now {
		if both := min(len(now)-n, len(older)); slices.Equal(now[n:n+both], older[:both]) {
			return n, true
		}
	}
	return len(now), len(now) == 1
}

// copy writes what there is from the offset on, also where that was put aside meanwhile. A file that has become shorter for
// another reason is read anew.
func (f *remoteFile) copy(ctx context.Context, out io.Writer) error {
	now, err := f.list(ctx)
	if err != nil {
		return err
	}
	if !f.listed {
		f.older, f.listed = now, true
	}
	for {
		newer, ok := newerThan(f.older, now)
		if !ok {
			f.older, f.offset = now, 0
			return errGone
		}
		from := remoteFile{client: f.client, path: f.path}
		if newer > 0 {
			from.path += "." + strconv.Itoa(newer)
		}
		data, size, err := from.read(ctx, f.offset, readAtOnce)
		if err != nil && (newer == 0 || ctx.Err() != nil) {
			return err
		}
		was, listErr := now, error(nil)
		if now, listErr = f.list(ctx); listErr != nil {
			return listErr
		}
		if !slices.Equal(was, now) {
			continue // it may have been another file that was read
		}
		if err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
		f.offset += uint64(len(data))
		switch {
		case newer > 0 && f.offset >= size:
			f.older, f.offset = now[newer-1:], f.offset-size
		case size < f.offset:
			f.offset = 0
		case newer == 0 && len(data) == 0:
			return nil
		}
	}
}
