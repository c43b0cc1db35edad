package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"starling/master/mesos"
)

// Prober probes one task. Tasks here share the network of the node, so it connects to the loopback address.
type Prober struct {
	// Env and Dir are the task's; a command of a check runs with them.
	Env []string
	Dir string
	// Credential is whom a command runs as; nil is the agent's own user.
	Credential *syscall.Credential
}

// Probe makes one attempt, which ends with ctx.
func (p *Prober) Probe(ctx context.Context, s Spec) Result {
	switch s.Kind {
	case HTTP:
		return p.http(ctx, s)
	case TCP:
		return p.tcp(ctx, s)
	default:
		return p.command(ctx, s.Command)
	}
}

func address(s Spec) string {
	host := "127.0.0.1"
	if s.IPv6 {
		host = "::1"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(s.Port)))
}

func (p *Prober) tcp(ctx context.Context, s Spec) Result {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(s))
	connected := err == nil
	if connected {
		conn.Close()
	} else if ctx.Err() != nil {
		return Result{Err: fmt.Errorf("cannot connect in time: %w", err)}
	}
	return Result{Healthy: connected, Connected: &connected, Err: err}
}

func (p *Prober) http(ctx context.Context, s Spec) Result {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Scheme+"://"+address(s)+s.Path, nil)
	if err != nil {
		return Result{Err: err}
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		// The check is about the task on this node, whatever name its certificate carries.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return Result{Err: err}
	}
	defer resp.Body.Close()
	// A part of the body is read, so that a server that answers is not cut off in the middle of its sentence.
	io.CopyN(io.Discard, resp.Body, 64<<10)
	status := uint32(resp.StatusCode)
	r := Result{Healthy: status >= 200 && status < 400, Status: &status}
	if !r.Healthy {
		r.Err = fmt.Errorf("status %d", status)
	}
	return r
}

func (p *Prober) command(ctx context.Context, info *mesos.CommandInfo) Result {
	var cmd *exec.Cmd
	if info.GetShell() {
		cmd = exec.CommandContext(ctx, "/bin/sh", "-c", info.GetValue())
	} else {
		cmd = exec.CommandContext(ctx, info.GetValue())
		if args := info.GetArguments(); len(args) > 0 {
			cmd.Args = args
		}
	}
	cmd.Env, cmd.Dir = slices.Clone(p.Env), p.Dir
	for _, v := range info.GetEnvironment().GetVariables() {
		cmd.Env = append(cmd.Env, v.GetName()+"="+v.GetValue())
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.Credential}
	// What it started goes with it, and a pipe that somebody holds open keeps nobody waiting.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return Result{Err: fmt.Errorf("the command did not end in time: %w", context.Cause(ctx))}
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code := int32(exit.ExitCode())
		if code < 0 {
			return Result{Err: err}
		}
		return Result{Exit: &code, Err: err}
	}
	if err != nil {
		return Result{Err: err}
	}
	code := int32(0)
	return Result{Healthy: true, Exit: &code}
}
