package api

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"io"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/master/mesos/server"
)

const (
	// maxLists is how many lists may be on their way at a time: each may take some megabytes while it is.
	maxLists = 8
	// listTime is how long a client may take to read one.
	listTime = 5 * time.Minute
	// listBuffer is how many bytes are written to a client at once.
	listBuffer = 32 << 10
)

// stream sends what write prints, as it is printed.
func (a *API) stream(ctx *fiber.Ctx, write func(*printer)) error {
	if !a.server.Synced() {
		return notYet(ctx)
	}
	select {
	case a.lists <- struct{}{}:
	default:
		ctx.Set(fiber.HeaderRetryAfter, "1")
		return server.Errorf(fiber.StatusServiceUnavailable, "%d lists are being sent already", maxLists)
	}
	header := map[string]string{
		fiber.HeaderContentType: fiber.MIMEApplicationJSON, fiber.HeaderConnection: "close", fiber.HeaderVary: fiber.HeaderAcceptEncoding,
	}
	packed := ctx.AcceptsEncodings("gzip") == "gzip" && ctx.Get(fiber.HeaderAcceptEncoding) != ""
	if packed {
		header[fiber.HeaderContentEncoding] = "gzip"
	}
	err := server.Stream(ctx, header, func(ctx context.Context, w *server.StreamWriter) error {
		defer func() { <-a.lists }()
		ctx, cancel := context.WithTimeout(ctx, listTime)
		defer cancel()
		out := bufio.NewWriterSize(while{ctx, w}, listBuffer)
		if !packed {
			write(&printer{w: out})
			return out.Flush()
		}
		z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
		if err != nil {
			return err
		}
		p := bufio.NewWriter(z)
		write(&printer{w: p})
		return cmp.Or(p.Flush(), z.Close(), out.Flush())
	})
	if err != nil {
		<-a.lists
	}
	return err
}

// while fails to write once its context has ended, and with it all that is written through it.
type while struct {
	ctx context.Context
	io.Writer
}

func (w while) Write(p []byte) (int, error) {
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}
