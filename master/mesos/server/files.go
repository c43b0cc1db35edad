package server

import (
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
)

// What the file endpoints of both daemons have in common. Spec: mesos-http-endpoints.md, Files.

// ReadMax is the most that one read of a file answers, in bytes: 16 pages.
const ReadMax = 16 << 12

// FilePath reads the parameter that all of the file endpoints need.
func FilePath(c *fiber.Ctx) (string, error) {
	name := utils.CopyString(c.Query("path"))
	if name == "" {
		return "", Errorf(fiber.StatusBadRequest, "Expecting 'path=value' in query.")
	}
	return name, nil
}

// FilePart reads the parameters of a read; -1 is for one that is absent.
func FilePart(c *fiber.Ctx) (offset, length int64, err error) {
	if offset, err = position(c, "offset"); err != nil {
		return 0, 0, err
	}
	length, err = position(c, "length")
	return offset, length, err
}

// position reads a number that may be absent or -1.
func position(c *fiber.Ctx, name string) (int64, error) {
	text := utils.CopyString(c.Query(name))
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, Errorf(fiber.StatusBadRequest, "Failed to parse %s: '%s' is not a number.", name, text)
	}
	if n < -1 {
		return 0, Errorf(fiber.StatusBadRequest, "Negative %s provided: %d.", name, n)
	}
	return n, nil
}

// ReadPart reads at most length bytes (-1: as many as one answer may have) of a file of a size, from an offset on. Beyond the
// end, and at an offset of -1, there is nothing.
func ReadPart(f *os.File, size, offset, length int64) []byte {
	if length < 0 || length > ReadMax {
		length = ReadMax
	}
	if offset < 0 || offset >= size {
		return []byte{}
	}
	data := make([]byte, min(length, size-offset))
	// What was cut off meanwhile is as what lies beyond any end.
	n, _ := f.ReadAt(data, offset)
	return data[:n]
}

// Download answers with all of a file, as something to be kept and not to be shown: whoever wrote it may have meant it for
// the browser of an operator. It closes the file.
func Download(c *fiber.Ctx, f *os.File, info fs.FileInfo, name string) error {
	kind := mime.TypeByExtension(filepath.Ext(name))
	if kind == "" {
		kind = fiber.MIMEOctetStream
	}
	NoCompress(c)
	c.Set(fiber.HeaderContentType, kind)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderContentDisposition, mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(name)}))
	// The size bounds the answer: somebody may go on writing. The server closes the file.
	c.Context().SetBodyStream(struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, info.Size()), f}, int(info.Size()))
	return nil
}
