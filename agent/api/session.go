package api

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/agent"
	"starling/agent/containerizer"
	"starling/agent/sandbox"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/recordio"
	"starling/master/mesos/server"
)

// The streams into and out of containers. A stream of outputs is written as fast as its client reads, and a client that does not
// read is cut off by the timeout of each write; nothing is queued on its behalf, the process waits instead.

const (
	// outputChunk is the most that one record of output carries, inputRecord the largest record of input that is taken, in bytes.
	outputChunk = 32 << 10
	inputRecord = 1 << 20
	// sessionEnd bounds the wait for the exit of a process whose outputs have ended.
	sessionEnd = 10 * time.Second
	// followEvery is how often files are looked at for what was appended.
	followEvery = 250 * time.Millisecond
)

// output writes the outputs of a container to one client.
type output struct {
	codec codec.Codec
	w     *server.StreamWriter
}

func (o output) data(kind operator.ProcessIO_Data_Type, data []byte) error {
	return o.w.WriteMessage(o.codec, &operator.ProcessIO{
		Type: operator.ProcessIO_DATA.Enum(), Data: &operator.ProcessIO_Data{Type: &kind, Data: data},
	})
}

func (o output) heartbeat() error {
	return o.w.WriteMessage(o.codec, &operator.ProcessIO{
		Type: operator.ProcessIO_CONTROL.Enum(),
		Control: &operator.ProcessIO_Control{
			Type: operator.ProcessIO_Control_HEARTBEAT.Enum(),
			Heartbeat: &operator.ProcessIO_Control_Heartbeat{
				Interval: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(heartbeatEvery))},
			},
		},
	})
}

// copy writes what comes from r until it ends or the client is gone.
func (o output) copy(kind operator.ProcessIO_Data_Type, r io.Reader) error {
	if r == nil {
		return nil
	}
	buf := make([]byte, outputChunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := o.data(kind, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // a terminal that is gone says so by an error
		}
	}
}

// pump writes the outputs of a session until they end, or ctx does, or the client takes no more; then it ends the session.
func (o output) pump(ctx context.Context, session containerizer.Session) {
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	ended := make(chan struct{})
	var beating, copying sync.WaitGroup
	beating.Go(func() {
		beat := time.NewTicker(heartbeatEvery)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				if o.heartbeat() != nil {
					_ = session.Close()
				}
			case <-ended:
				return
			}
		}
	})
	one := func(kind operator.ProcessIO_Data_Type, r io.Reader) {
		if o.copy(kind, r) != nil {
			_ = session.Close()
		}
	}
	copying.Go(func() { one(operator.ProcessIO_Data_STDOUT, session.Output()) })
	copying.Go(func() { one(operator.ProcessIO_Data_STDERR, session.ErrOutput()) })
	copying.Wait()
	close(ended)
	beating.Wait()
}

// launchSession runs a process in a container for as long as the client stays.
func (s *Server) launchSession(c *fiber.Ctx, call *operator.Call, a accepted) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	l := call.GetLaunchNestedContainerSession()
	session, err := s.agent.OpenSession(ctx, agent.ContainerRequest{
		ID: l.GetContainerId(), Command: l.GetCommand(), Container: l.GetContainer(),
	})
	if err != nil {
		return fail(err)
	}
	finish := func() {
		ctx, cancel := context.WithTimeout(context.Background(), sessionEnd)
		defer cancel()
		session.Finish(ctx)
	}
	err = server.Stream(c, a.header(), func(ctx context.Context, w *server.StreamWriter) error {
		output{a.codec, w}.pump(ctx, session)
		finish()
		return nil
	})
	if err != nil {
		_ = session.Close()
		finish()
	}
	return err
}

// attachOutput shows what a container writes from now on: on its terminal, or, where it has none, to its files.
func (s *Server) attachOutput(c *fiber.Ctx, call *operator.Call, a accepted) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	id := call.GetAttachContainerOutput().GetContainerId()
	ref, err := s.agent.Container(ctx, id)
	switch {
	case err != nil:
		return fail(err)
	case !ref.Running:
		return fail(agent.ErrContainerUnknown)
	case ref.Session:
		return server.Errorf(fiber.StatusBadRequest, "The output of a session goes to the client that has launched it")
	}
	session, err := s.agent.AttachTerminal(ref.Name)
	if errors.Is(err, containerizer.ErrNoTerminal) || errors.Is(err, containerizer.ErrUnsupported) {
		return s.followFiles(c, id, ref, a)
	} else if err != nil {
		return fail(err)
	}
	err = server.Stream(c, a.header(), func(ctx context.Context, w *server.StreamWriter) error {
		output{a.codec, w}.pump(ctx, session)
		return session.Close()
	})
	if err != nil {
		_ = session.Close()
	}
	return err
}

// followFiles shows what a container without a terminal appends to its files, until it ends.
func (s *Server) followFiles(c *fiber.Ctx, id *mesos.ContainerID, ref agent.ContainerRef, a accepted) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	end, leave, err := s.agent.AwaitContainer(ctx, id)
	if err != nil {
		return fail(err)
	}
	st, err := s.agent.State(ctx)
	if err != nil {
		leave()
		return unavailable(err)
	}
	files := []appended{{kind: operator.ProcessIO_Data_STDOUT}, {kind: operator.ProcessIO_Data_STDERR}}
	for i, name := range []string{"stdout", "stderr"} {
		path := filepath.Join(ref.Directory, name)
		if files[i].Follower, err = s.layout(st).Follow(ctx, path, s.agent.OutputHead(ref.Name, path)); err != nil {
			leave()
			return unavailable(err)
		}
	}
	err = server.Stream(c, a.header(), func(ctx context.Context, w *server.StreamWriter) error {
		defer leave()
		o := output{a.codec, w}
		look, beat := time.NewTicker(followEvery), time.NewTicker(heartbeatEvery)
		defer look.Stop()
		defer beat.Stop()
		for {
			ended := false
			select {
			case <-ctx.Done():
				return nil
			case <-beat.C:
				if err := o.heartbeat(); err != nil {
					return err
				}
				continue
			case <-look.C:
			case <-end:
				ended = true
			}
			for _, f := range files {
				if err := o.appended(ctx, f); err != nil {
					return err
				}
			}
			if ended {
				return nil
			}
		}
	})
	if err != nil {
		leave()
	}
	return err
}

// appended is a file that is followed, and what it is to its container.
type appended struct {
	*sandbox.Follower
	kind operator.ProcessIO_Data_Type
}

// appended writes what was appended to a file since the last time.
func (o output) appended(ctx context.Context, f appended) error {
	buf := make([]byte, outputChunk)
	for {
		n, err := f.Read(ctx, buf)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		if err := o.data(f.kind, buf[:n]); err != nil {
			return err
		}
	}
}

// attachInput writes what a client sends to the terminal of a container, or to a session. The answer comes at the end.
func (s *Server) attachInput(c *fiber.Ctx) error {
	cd, err := streamedCodec(c)
	if err != nil {
		return err
	}
	// The deadline of the connection is made use of below, so nothing may follow on it.
	c.Context().SetConnectionClose()
	ctx, cancel := context.WithCancel(server.Context(c))
	defer cancel()
	body, stop := arriving(ctx, c)
	defer stop()
	in := recordio.NewReader(body, inputRecord)
	first, err := nextInput(in, cd)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		return server.Errorf(fiber.StatusBadRequest, "Received EOF while reading request body")
	default:
		return err
	}
	id := first.GetContainerId()
	if first.GetType() != operator.Call_AttachContainerInput_CONTAINER_ID || id == nil {
		return server.Errorf(fiber.StatusBadRequest, "Failed to validate agent::Call: Expecting 'attach_container_input.container_id' to be present in the first message")
	}
	if _, err := accept(c, false); err != nil {
		return err
	}
	session, release, err := s.agent.AttachInput(ctx, id)
	if errors.Is(err, containerizer.ErrNoTerminal) || errors.Is(err, containerizer.ErrUnsupported) {
		return server.Errorf(fiber.StatusBadRequest, "The container has no terminal, and its standard input is connected to nothing")
	} else if err != nil {
		return fail(err)
	}
	defer release()
	// Once the process has ended nothing more is of use; the client is told so by the answer.
	unwatch := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-session.Ended():
			cancel()
		case <-unwatch:
		}
	})
	defer watching.Wait()
	defer close(unwatch)
	if err := feed(in, cd, session); err != nil && ctx.Err() == nil {
		return err
	}
	return c.Status(fiber.StatusOK).Send(nil)
}

// feed writes to a session what comes in, until that ends.
func feed(in *recordio.Reader, cd codec.Codec, session containerizer.Session) error {
	closed := session.Input() == nil
	for {
		msg, err := nextInput(in, cd)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		p := msg.GetProcessIo()
		switch {
		case msg.GetType() != operator.Call_AttachContainerInput_PROCESS_IO || p == nil:
			return server.Errorf(fiber.StatusBadRequest, "Failed to validate agent::Call: Expecting 'attach_container_input.process_io' to be present")
		case p.GetType() == operator.ProcessIO_CONTROL:
			if size := p.GetControl().GetTtyInfo().GetWindowSize(); size != nil {
				// A terminal that is gone needs no size.
				_ = session.Resize(uint16(min(size.GetColumns(), 1<<16-1)), uint16(min(size.GetRows(), 1<<16-1)))
			}
		case p.GetType() != operator.ProcessIO_DATA || p.GetData().GetType() != operator.ProcessIO_Data_STDIN:
			return server.Errorf(fiber.StatusBadRequest, "Failed to validate agent::Call: Expecting 'process_io.data.type' to be STDIN")
		case closed:
		case len(p.GetData().GetData()) == 0:
			closed = true
			_ = session.Input().Close()
		default:
			if _, err := session.Input().Write(p.GetData().GetData()); err != nil {
				closed = true // the process has closed its end, and may go on all the same
			}
		}
	}
}

// nextInput reads one record of a stream of input.
func nextInput(in *recordio.Reader, cd codec.Codec) (*operator.Call_AttachContainerInput, error) {
	rec, err := in.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, server.Errorf(fiber.StatusBadRequest, "Failed to read a record of the request: %v", err)
	}
	call := new(operator.Call)
	if err := cd.Unmarshal(rec, call); err != nil {
		return nil, server.Errorf(fiber.StatusBadRequest, "Failed to parse a record of the request: %v", err)
	}
	if call.GetType() != operator.Call_ATTACH_CONTAINER_INPUT {
		return nil, server.Errorf(fiber.StatusUnsupportedMediaType, "Expecting calls of ATTACH_CONTAINER_INPUT alone in a streaming request")
	}
	if call.GetAttachContainerInput() == nil {
		return nil, missing("'attach_container_input' to be present")
	}
	return call.GetAttachContainerInput(), nil
}
