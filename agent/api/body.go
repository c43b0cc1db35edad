package api

import (
	"io"
	"os"
)

// limitedFile is a file of which no more is sent than it had when it was opened.
type limitedFile struct {
	file *os.File
	size int64
}

// reader reads the file and closes it at the end.
func (l limitedFile) reader() io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(l.file, l.size), l.file}
}
