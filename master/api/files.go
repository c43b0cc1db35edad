package api

import (
	"context"
	"errors"
	"io/fs"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// The one file that a master shows is its log, where it is told which one that is. Spec: mesos-http-endpoints.md, Files.

const (
	// logPath is where the log is found.
	logPath = "/master/log"
	// readMax is the most that one read answers, in bytes: 16 pages.
	readMax = 16 << 12
)

// openLog opens the file of a virtual path; the error is an answer.
func (a *api) openLog(name string) (*os.File, fs.FileInfo, error) {
	if a.logFile == "" || path.Clean("/"+name) != logPath {
		return nil, nil, server.Errorf(fiber.StatusNotFound, "404 Not Found.")
	}
	// Without O_NONBLOCK the opening of a pipe would wait for a writer.
	f, err := os.OpenFile(a.logFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, server.Errorf(fiber.StatusNotFound, "404 Not Found.")
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && info.Mode().IsRegular() {
			return f, info, nil
		}
		_ = f.Close()
	}
	a.log.Warn("cannot show the log", "path", a.logFile, "err", err)
	return nil, nil, server.Errorf(fiber.StatusBadRequest, "'%s' is inaccessible", name)
}

// readLog returns at most length bytes from offset on, and the size of the file; a length of -1 means all, within readMax.
func (a *api) readLog(name string, offset, length int64) (data []byte, size int64, err error) {
	f, info, err := a.openLog(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size = info.Size()
	if length == -1 || length > readMax {
		length = readMax
	}
	if offset < 0 || offset >= size {
		return []byte{}, size, nil
	}
	data = make([]byte, min(length, size-offset))
	n, err := f.ReadAt(data, offset)
	if n == 0 && len(data) > 0 && err != nil {
		n = 0 // cut meanwhile: there is nothing at that place, as beyond any end
	}
	return data[:n], size, nil
}

func filePath(c *fiber.Ctx) (string, error) {
	name := queryCopy(c, "path")
	if name == "" {
		return "", server.Errorf(fiber.StatusBadRequest, "Expecting 'path=value' in query.")
	}
	return name, nil
}

// browse lists a folder. There is none to be seen, and a file lists as nothing.
func (a *api) browse(c *fiber.Ctx) error {
	name, err := filePath(c)
	if err != nil {
		return err
	}
	f, _, err := a.openLog(name)
	if err != nil {
		return err
	}
	_ = f.Close()
	return server.WriteJSON(c, []byte("[]"))
}

func (a *api) read(c *fiber.Ctx) error {
	name, err := filePath(c)
	if err != nil {
		return err
	}
	offset, err := position(c, "offset")
	if err != nil {
		return err
	}
	length, err := position(c, "length")
	if err != nil {
		return err
	}
	data, size, err := a.readLog(name, offset, length)
	if err != nil {
		return err
	}
	if offset == -1 {
		offset = size
	}
	w := newJSON()
	w.object(func() {
		w.string("data", strings.ToValidUTF8(string(data), "\uFFFD"))
		w.int("offset", int(offset))
	})
	return server.WriteJSON(c, w.b)
}

// position reads a number that may be absent or -1.
func position(c *fiber.Ctx, name string) (int64, error) {
	text := queryCopy(c, name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, server.Errorf(fiber.StatusBadRequest, "Failed to parse %s: '%s' is not a number.", name, text)
	}
	if n < -1 {
		return 0, server.Errorf(fiber.StatusBadRequest, "Negative %s provided: %d.", name, n)
	}
	return n, nil
}

func (a *api) download(c *fiber.Ctx) error {
	name, err := filePath(c)
	if err != nil {
		return err
	}
	f, info, err := a.openLog(name)
	if err != nil {
		return err
	}
	kind := mime.TypeByExtension(filepath.Ext(name))
	if kind == "" {
		kind = fiber.MIMEOctetStream
	}
	server.NoCompress(c)
	c.Set(fiber.HeaderContentType, kind)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderContentDisposition, mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(name)}))
	// The size bounds the answer: the log goes on. The server closes the file.
	c.Context().SetBodyStream(f, int(info.Size()))
	return nil
}

// debugFiles tells what the virtual paths stand for.
func (a *api) debugFiles(c *fiber.Ctx) error {
	w := newJSON()
	w.object(func() {
		if a.logFile != "" {
			w.string(logPath, a.logFile)
		}
	})
	return server.WriteJSON(c, w.b)
}

func (a *api) listFiles(_ context.Context, call *operator.Call) (*operator.Response, error) {
	f, _, err := a.openLog(call.GetListFiles().GetPath())
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	return &operator.Response{ListFiles: &operator.Response_ListFiles{FileInfos: []*mesos.FileInfo{}}}, nil
}

func (a *api) readFile(_ context.Context, call *operator.Call) (*operator.Response, error) {
	r := call.GetReadFile()
	length := int64(-1)
	if r.Length != nil {
		length = int64(min(r.GetLength(), readMax))
	}
	data, size, err := a.readLog(r.GetPath(), int64(min(r.GetOffset(), 1<<62)), length)
	if err != nil {
		return nil, err
	}
	return &operator.Response{ReadFile: &operator.Response_ReadFile{Size: proto.Uint64(uint64(size)), Data: data}}, nil
}
