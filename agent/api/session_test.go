package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer/containerizertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/recordio"
)

// session is a client that has launched one.
type session struct {
	t    testing.TB
	resp *http.Response
	in   *recordio.Reader
	cd   codec.Codec
}

// open launches a session and returns once its head has come.
func (s *served) open(call *operator.Call, cd codec.Codec, header ...string) *session {
	s.t.Helper()
	body, err := cd.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, s.base+"/api/v1", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", cd.ContentType())
	req.Header.Set("Accept", cd.ContentType())
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%v: %d %s", call.GetType(), resp.StatusCode, text)
	}
	return &session{s.t, resp, recordio.NewReader(resp.Body, 0), cd}
}

func (s *session) next() (*operator.ProcessIO, error) {
	rec, err := s.in.Next()
	if err != nil {
		return nil, err
	}
	p := &operator.ProcessIO{}
	return p, s.cd.Unmarshal(rec, p)
}

// want reads records until their data of a kind is the text.
func (s *session) want(kind operator.ProcessIO_Data_Type, text string) {
	s.t.Helper()
	got := ""
	for got != text {
		p, err := s.next()
		if err != nil || len(got) > len(text) {
			s.t.Fatalf("got %q, want %q: %v", got, text, err)
		}
		if p.GetData().GetType() == kind {
			got += string(p.GetData().GetData())
		}
	}
}

func launchSession(parent, name string, terminal bool) *operator.Call {
	l := &operator.Call_LaunchNestedContainerSession{
		ContainerId: &mesos.ContainerID{Value: &name, Parent: &mesos.ContainerID{Value: &parent}},
		Command:     &mesos.CommandInfo{Value: proto.String("cat")},
	}
	if terminal {
		l.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), TtyInfo: &mesos.TTYInfo{
			WindowSize: &mesos.TTYInfo_WindowSize{Rows: proto.Uint32(24), Columns: proto.Uint32(80)},
		}}
	}
	return &operator.Call{Type: operator.Call_LAUNCH_NESTED_CONTAINER_SESSION.Enum(), LaunchNestedContainerSession: l}
}

// input is a client that is attached to the input of a container.
type input struct {
	t      testing.TB
	cd     codec.Codec
	w      *io.PipeWriter
	answer chan string
}

func (s *served) attach(parent, name string, cd codec.Codec) *input {
	s.t.Helper()
	r, w := io.Pipe()
	in := &input{s.t, cd, w, make(chan string, 1)}
	req, err := http.NewRequest(http.MethodPost, s.base+"/slave(1)/api/v1", r)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", codec.TypeRecordIO)
	req.Header.Set("Message-Content-Type", cd.ContentType())
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			in.answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		in.answer <- fmt.Sprintf("%d %s", resp.StatusCode, text)
	}()
	in.send(&operator.Call_AttachContainerInput{
		Type:        operator.Call_AttachContainerInput_CONTAINER_ID.Enum(),
		ContainerId: containerIn(parent, name),
	})
	return in
}

// containerIn is the id of a container that is nested in another, or in nothing.
func containerIn(parent, name string) *mesos.ContainerID {
	id := &mesos.ContainerID{Value: &name}
	if parent != "" {
		id.Parent = &mesos.ContainerID{Value: &parent}
	}
	return id
}

func (i *input) send(a *operator.Call_AttachContainerInput) {
	i.t.Helper()
	rec, err := i.cd.Marshal(&operator.Call{Type: operator.Call_ATTACH_CONTAINER_INPUT.Enum(), AttachContainerInput: a})
	if err != nil {
		i.t.Fatal(err)
	}
	// The server may have answered, and closed the pipe.
	_, _ = i.w.Write(recordio.Append(nil, rec))
}

func (i *input) process(p *operator.ProcessIO) {
	i.send(&operator.Call_AttachContainerInput{Type: operator.Call_AttachContainerInput_PROCESS_IO.Enum(), ProcessIo: p})
}

func (i *input) text(text string) {
	i.process(&operator.ProcessIO{Type: operator.ProcessIO_DATA.Enum(), Data: &operator.ProcessIO_Data{
		Type: operator.ProcessIO_Data_STDIN.Enum(), Data: []byte(text),
	}})
}

func (i *input) want(answer string) {
	i.t.Helper()
	select {
	case got := <-i.answer:
		if !strings.HasPrefix(got, answer) {
			i.t.Errorf("the input was answered %q, want %q", got, answer)
		}
	case <-time.After(patience):
		i.t.Fatal("the input is not answered")
	}
}

func TestSession(t *testing.T) {
	for _, cd := range []codec.Codec{codec.JSON, codec.Protobuf} {
		t.Run(cd.ContentType(), func(t *testing.T) {
			s := serve(t, nil)
			s.fake.OnExec = func(p *containerizertest.FakeProcess) int {
				fmt.Fprint(p.ErrOut, "ready")
				io.Copy(p.Out, p.In)
				return 7 << 8
			}
			s.launch(nil, "t1")
			parent := s.container()
			out := s.open(launchSession(parent, "s1", false), cd)
			out.want(operator.ProcessIO_Data_STDERR, "ready")
			in := s.attach(parent, "s1", cd)
			in.text("one\n")
			out.want(operator.ProcessIO_Data_STDOUT, "one\n")
			second := s.attach(parent, "s1", cd)
			second.want("409 Multiple input connections are not allowed")
			in.text("two\n")
			in.text("") // the end of its input
			out.want(operator.ProcessIO_Data_STDOUT, "two\n")
			if _, err := out.next(); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
			in.want("200 ")
			wait := `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"s1","parent":{"value":"` + parent + `"}}}}`
			s.expect(wait, 200, `"exit_status":1792`)
			s.expect(strings.ReplaceAll(strings.ReplaceAll(wait, "WAIT", "REMOVE"), "wait", "remove"), 200, "")
			s.expect(wait, 404, "cannot be found")
		})
	}
}

// Whoever leaves takes the process along.
func TestSessionEndsWithItsConnection(t *testing.T) {
	s := serve(t, nil)
	left := make(chan struct{}, 1)
	s.fake.OnExec = func(p *containerizertest.FakeProcess) int {
		fmt.Fprint(p.Out, "$ ")
		_, _ = io.CopyN(p.Out, p.In, 1)
		<-p.Left
		left <- struct{}{}
		return 0
	}
	s.launch(nil, "t1")
	parent := s.container()
	out := s.open(launchSession(parent, "s1", true), codec.JSON, "Accept", codec.TypeRecordIO, "Message-Accept", codec.TypeJSON)
	if out.resp.Header.Get("Content-Type") != codec.TypeRecordIO || out.resp.Header.Get("Message-Content-Type") != codec.TypeJSON {
		t.Errorf("header: %v", out.resp.Header)
	}
	out.want(operator.ProcessIO_Data_STDOUT, "$ ")
	in := s.attach(parent, "s1", codec.JSON)
	in.text("k")
	out.want(operator.ProcessIO_Data_STDOUT, "k")
	out.resp.Body.Close()
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("the process outlives its client")
	}
	in.want("200 ")
	s.expect(`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"s1","parent":{"value":"`+parent+`"}}}}`, 200, `"exit_status":9`)
}

func TestTerminalIsResized(t *testing.T) {
	s := serve(t, nil)
	sizes := make(chan [2]uint16, 4)
	s.fake.OnExec = func(p *containerizertest.FakeProcess) int {
		sizes <- [2]uint16{p.Process.Columns, p.Process.Rows}
		select {
		case size := <-p.Sizes:
			sizes <- size
		case <-p.Left:
		}
		return 0
	}
	s.launch(nil, "t1")
	parent := s.container()
	s.open(launchSession(parent, "s1", true), codec.JSON)
	in := s.attach(parent, "s1", codec.JSON)
	in.process(&operator.ProcessIO{Type: operator.ProcessIO_CONTROL.Enum(), Control: &operator.ProcessIO_Control{
		Type: operator.ProcessIO_Control_TTY_INFO.Enum(), TtyInfo: &mesos.TTYInfo{WindowSize: &mesos.TTYInfo_WindowSize{Rows: proto.Uint32(50), Columns: proto.Uint32(132)}},
	}})
	for _, want := range [][2]uint16{{80, 24}, {132, 50}} {
		if got := <-sizes; got != want {
			t.Errorf("size %v, want %v", got, want)
		}
	}
	in.want("200 ")
}

func TestAttachToATaskWithoutTerminal(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	id := s.container()
	spec, _ := s.fake.Launched(id)
	write := func(name, text string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(spec.Dir, name), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("stdout", "before\n")
	out := s.open(&operator.Call{
		Type: operator.Call_ATTACH_CONTAINER_OUTPUT.Enum(), AttachContainerOutput: &operator.Call_AttachContainerOutput{ContainerId: &mesos.ContainerID{Value: &id}},
	}, codec.JSON)
	write("stdout", "after\n")
	out.want(operator.ProcessIO_Data_STDOUT, "after\n")
	write("stderr", "oops\n")
	out.want(operator.ProcessIO_Data_STDERR, "oops\n")
	if err := os.Truncate(filepath.Join(spec.Dir, "stdout"), 0); err != nil {
		t.Fatal(err)
	}
	write("stdout", "anew\n")
	out.want(operator.ProcessIO_Data_STDOUT, "anew\n")
	in := s.attach("", "", codec.JSON) // an id without a value
	in.want("400 'ContainerID.value' must be non-empty")
	write("stdout", "last\n")
	if err := s.fake.Exit(id, 0); err != nil {
		t.Fatal(err)
	}
	out.want(operator.ProcessIO_Data_STDOUT, "last\n")
	if _, err := out.next(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestAttachToATerminal(t *testing.T) {
	s := serve(t, nil)
	typed := make(chan byte, 4)
	s.fake.OnExec = func(p *containerizertest.FakeProcess) int {
		key := make([]byte, 1)
		if _, err := io.ReadFull(p.In, key); err == nil {
			typed <- key[0]
			_, _ = io.Copy(io.Discard, p.In)
		}
		return 0
	}
	s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"tty"},"command":{"value":"cat"},"container":{"type":"MESOS","tty_info":{}}}}`, 200, "")
	// Each attachment to the fake is a terminal of its own: what comes in on one is not shown on the other.
	output := func() *session {
		return s.open(&operator.Call{
			Type:                  operator.Call_ATTACH_CONTAINER_OUTPUT.Enum(),
			AttachContainerOutput: &operator.Call_AttachContainerOutput{ContainerId: &mesos.ContainerID{Value: proto.String("tty")}},
		}, codec.JSON)
	}
	for range 2 { // the input is free again after the first
		out, in := output(), s.attach("", "tty", codec.Protobuf)
		in.text("x")
		if got := <-typed; got != 'x' {
			t.Errorf("%q was typed", got)
		}
		second := s.attach("", "tty", codec.JSON)
		second.want("409 ")
		in.w.Close()
		in.want("200 ")
		out.resp.Body.Close()
	}
	in := s.attach("", "none", codec.JSON)
	in.want("404 ")
	if running := s.fake.Running(); len(running) != 1 {
		t.Errorf("running: %v", running)
	}
}
