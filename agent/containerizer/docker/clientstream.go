package docker

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/docker/docker/api/types/container"

	"starling/agent/containerizer"
)

// hijack marks the context of a call whose connection becomes a stream. Docker's client does not look at the context while
// it waits for the answer to such a call, so the connection gets the deadline itself.
type hijack struct{}

func (a *apiClient) Logs(ctx context.Context, id string, since time.Time) (io.ReadCloser, error) {
	c, err := a.client(ctx)
	if err != nil {
		return nil, a.told(ctx, err)
	}
	opts := container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Timestamps: true}
	if !since.IsZero() {
		opts.Since = fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())
	}
	r, err := c.ContainerLogs(ctx, id, opts)
	return r, a.told(ctx, err)
}

func (a *apiClient) Attach(ctx context.Context, id string) (stream, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return nil, a.told(ctx, err)
	}
	h, err := c.ContainerAttach(context.WithValue(limit, hijack{}, true), id, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return nil, a.told(ctx, err)
	}
	if err := h.Conn.SetDeadline(time.Time{}); err != nil {
		h.Close()
		return nil, err
	}
	return &hijacked{h.Reader, h.Conn}, nil
}

func (a *apiClient) Resize(ctx context.Context, id string, columns, rows uint16) error {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	return a.told(ctx, c.ContainerResize(limit, id, container.ResizeOptions{Width: uint(columns), Height: uint(rows)}))
}

func (a *apiClient) ExecCreate(ctx context.Context, id string, p containerizer.Process) (string, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return "", a.told(ctx, err)
	}
	cmd := []string{p.Path}
	if len(p.Args) > 1 {
		cmd = append(cmd, p.Args[1:]...)
	}
	created, err := c.ContainerExecCreate(limit, id, container.ExecOptions{
		User: p.User, Tty: p.Terminal, AttachStdin: true, AttachStdout: true, AttachStderr: true, Env: p.Env, Cmd: cmd,
	})
	return created.ID, a.told(ctx, err)
}

func (a *apiClient) ExecStart(ctx context.Context, exec string, terminal bool) (stream, error) {
	limit, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return nil, a.told(ctx, err)
	}
	h, err := c.ContainerExecAttach(context.WithValue(limit, hijack{}, true), exec, container.ExecAttachOptions{Tty: terminal})
	if err != nil {
		return nil, a.told(ctx, err)
	}
	if err := h.Conn.SetDeadline(time.Time{}); err != nil {
		h.Close()
		return nil, err
	}
	return &hijacked{h.Reader, h.Conn}, nil
}

func (a *apiClient) ExecInspect(ctx context.Context, exec string) (execution, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return execution{}, a.told(ctx, err)
	}
	e, err := c.ContainerExecInspect(limit, exec)
	return execution{Running: e.Running, ExitCode: e.ExitCode, PID: e.Pid}, a.told(ctx, err)
}

func (a *apiClient) ExecResize(ctx context.Context, exec string, columns, rows uint16) error {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	return a.told(ctx, c.ContainerExecResize(limit, exec, container.ResizeOptions{Width: uint(columns), Height: uint(rows)}))
}

// hijacked is a connection that was a call before.
type hijacked struct {
	io.Reader
	net.Conn
}

func (h *hijacked) Read(p []byte) (int, error) { return h.Reader.Read(p) }

func (h *hijacked) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
