package api

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
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

// readLog returns at most length bytes from offset on, and the size of the file; a length of -1 means all, within what one
// answer may have.
func (a *api) readLog(name string, offset, length int64) (data []byte, size int64, err error) {
	f, info, err := a.openLog(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	return server.ReadPart(f, info.Size(), offset, length), info.Size(), nil
}

// browse lists a folder. There is none to be seen, and a file lists as nothing.
func (a *api) browse(c *fiber.Ctx) error {
	name, err := server.FilePath(c)
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
	name, err := server.FilePath(c)
	if err != nil {
		return err
	}
	offset, length, err := server.FilePart(c)
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

func (a *api) download(c *fiber.Ctx) error {
	name, err := server.FilePath(c)
	if err != nil {
		return err
	}
	f, info, err := a.openLog(name)
	if err != nil {
		return err
	}
	return server.Download(c, f, info, name)
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
		length = int64(min(r.GetLength(), server.ReadMax))
	}
	data, size, err := a.readLog(r.GetPath(), int64(min(r.GetOffset(), 1<<62)), length)
	if err != nil {
		return nil, err
	}
	return &operator.Response{ReadFile: &operator.Response_ReadFile{Size: proto.Uint64(uint64(size)), Data: data}}, nil
}
