package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"starling/agent/containerizer"
	"starling/agent/network/netns"
	"starling/master/mesos"
)

// Prober probes one task.
type Prober struct {
	// Env and Dir are the task's; a command of a check runs with them.
	Env []string
	Dir string
	// Credential is whom a command runs as; nil is the agent's own user.
	Credential *syscall.Credential
	// Namespace is the file of the task's network namespace, in which its loopback address is asked; empty, or that of the
	// agent itself, is the node's.
	Namespace string
	// Address is one of the task that the node reaches, for where the namespace is not to be entered: by an agent without
	// root, or beside an engine on another machine. Empty where the task is in the node's network.
	Address string
	// Exec runs a command in the task's container; nil runs it on the node.
	Exec func(context.Context, containerizer.Process) (containerizer.Session, error)
	// Plain is set for a task that is a process of the node: where nothing can be run in containers (Exec returns
	// containerizer.ErrUnsupported), its commands run on the node.
	Plain bool
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

// dial connects as the task itself would.
func (p *Prober) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	hosts := []string{host}
	if net.ParseIP(host) == nil { // where a redirect leads
		if hosts, err = net.DefaultResolver.LookupHost(ctx, host); err != nil {
			return nil, err
		}
	}
	var conn net.Conn
	for _, host := range hosts {
		conn, err = netns.DialContext(ctx, p.Namespace, net.JoinHostPort(host, port))
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		if errors.Is(err, netns.ErrEnter) {
			if p.Address != "" && net.ParseIP(host).IsLoopback() {
				host = p.Address
			}
			return netns.DialContext(ctx, "", net.JoinHostPort(host, port))
		}
	}
	return nil, err
}

func (p *Prober) tcp(ctx context.Context, s Spec) Result {
	conn, err := p.dial(ctx, "tcp", address(s))
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
		DisableKeepAlives: true, DialContext: p.dial, MaxResponseHeaderBytes: 64 << 10,
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
	if p.Exec == nil {
		return p.onNode(ctx, info)
	}
	return p.inside(ctx, info)
}

func (p *Prober) onNode(ctx context.Context, info *mesos.CommandInfo) Result {
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
	err := cmd.Start()
	if err == nil {
		// The agent may be protected from the OOM killer; what tasks bring along is not.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
		err = cmd.Wait()
	}
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

// inside runs a command in the container of the task.
func (p *Prober) inside(ctx context.Context, info *mesos.CommandInfo) Result {
	process := containerizer.Process{Path: info.GetValue(), Args: info.GetArguments()}
	if info.GetShell() {
		process.Path, process.Args = "/bin/sh", []string{"sh", "-c", info.GetValue()}
	}
	for _, v := range info.GetEnvironment().GetVariables() {
		process.Env = append(process.Env, v.GetName()+"="+v.GetValue())
	}
	session, err := p.Exec(ctx, process)
	if p.Plain && errors.Is(err, containerizer.ErrUnsupported) {
		return p.onNode(ctx, info)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("the command was not started in time: %w", err)
		}
		return Result{Err: err}
	}
	// What it writes is nobody's, but has to be read.
	var outputs sync.WaitGroup
	for _, out := range []io.Reader{session.Output(), session.ErrOutput()} {
		if out != nil {
			outputs.Go(func() { io.Copy(io.Discard, out) })
		}
	}
	if in := session.Input(); in != nil {
		in.Close()
	}
	exit, err := session.Wait(ctx)
	// Ends the command where it has not ended, and with it the outputs.
	closed := session.Close()
	outputs.Wait()
	switch {
	case ctx.Err() != nil:
		return Result{Err: fmt.Errorf("the command did not end in time: %w", context.Cause(ctx))}
	case err != nil:
		return Result{Err: errors.Join(err, closed)}
	case !exit.Known:
		return Result{Err: errors.New("how the command ended could not be learned")}
	}
	ws := syscall.WaitStatus(exit.Status)
	if !ws.Exited() {
		return Result{Err: fmt.Errorf("the command was ended by signal %d", ws.Signal())}
	}
	code := int32(ws.ExitStatus())
	if code != 0 {
		return Result{Exit: &code, Err: fmt.Errorf("the command ended with status %d", code)}
	}
	return Result{Healthy: true, Exit: &code}
}
