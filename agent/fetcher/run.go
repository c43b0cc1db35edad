package fetcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// job is what a child is told to do.
type job struct {
	As identity
	// Sandbox is where items go; empty when all of them fill files.
	Sandbox  string
	Items    []item
	Stall    time.Duration
	MaxBytes int64
	Allow    []netip.Prefix
	Hadoop   string
}

// item is one URI.
type item struct {
	URI, Target         string
	Executable, Extract bool
	// FD is a file that the child was given: with Fill to be filled by a download, otherwise the content. 0 is none: the URI
	// is downloaded into the sandbox.
	FD   int
	Fill bool
}

// answer is what a child says in the end.
type answer struct {
	// Error is a sentence; empty when all is done.
	Error    string
	TooLarge bool
	// Mode is that of the file where the last item comes from.
	Mode uint32
}

// answerMax bounds what is read of a child's answer.
const answerMax = 64 << 10

// keptEnvironment is what of the agent's environment says how to reach the world, and where hadoop's things are.
var keptEnvironment = []string{
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "PATH",
	"JAVA_HOME", "HADOOP_HOME", "HADOOP_CONF_DIR", "HADOOP_USER_NAME", "HADOOP_CLASSPATH", "HADOOP_OPTS", "LANG", "TZ", "GOCOVERDIR",
}

// run has a child do a job. files become its descriptors from 3 on.
func (f *Fetcher) run(ctx context.Context, j job, files []*os.File) (answer, error) {
	orders, err := json.Marshal(j)
	if err != nil {
		return answer{}, fmt.Errorf("cannot fetch: %w", err)
	}
	cmd := exec.CommandContext(ctx, f.cfg.Command[0], f.cfg.Command[1:]...)
	cmd.Dir, cmd.ExtraFiles, cmd.WaitDelay = "/", files, 2*time.Second
	cmd.Env = []string{}
	for _, name := range keptEnvironment {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	// A group of its own, so that what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, said := &bounded{max: answerMax}, &tail{}
	cmd.Stdout, cmd.Stderr = out, said
	in, err := cmd.StdinPipe()
	if err != nil {
		return answer{}, fmt.Errorf("cannot start the child that fetches: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return answer{}, fmt.Errorf("cannot start the child that fetches: %w", err)
	}
	// The end of the input would end the child: Wait closes it.
	_, writeErr := in.Write(append(orders, '\n'))
	waitErr := cmd.Wait()
	if ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		text := strings.ToValidUTF8(strings.TrimSpace(string(said.last)), "\uFFFD")
		return answer{}, fmt.Errorf("cannot fetch: the child that fetches failed (%w): %s", errors.Join(waitErr, writeErr), text)
	}
	switch {
	case a.TooLarge:
		return a, &sentence{a.Error, errTooLarge}
	case a.Error != "":
		return a, errors.New(a.Error)
	}
	return a, nil
}

// sentence is an error of the child with what it is.
type sentence struct {
	text string
	is   error
}

func (s *sentence) Error() string { return s.text }
func (s *sentence) Unwrap() error { return s.is }

// bounded keeps the beginning of what is written to it.
type bounded struct {
	bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, b.max-b.Len()))])
	return len(p), nil
}
