package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// container is one entry of the books. Its fields are guarded by server.mu, except those that say otherwise.
type container struct {
	// record is what the disk holds, or is about to hold.
	record
	// pidfd is -1 when no process is held. Only the reaper closes it.
	pidfd int
	// child is false for a process that we adopted after a life of ours that ended: somebody else reaps it.
	child bool
	// started is closed when the start has come to an end, well or badly; nil after that was so from the outset.
	started chan struct{}
	// ended is made on demand, and closed when the exit is told.
	ended chan struct{}
	// meant is the signal in whose name the process was killed; zero where SIGKILL is what was meant. It is not on disk: the
	// next supervisor tells SIGKILL.
	meant syscall.Signal
	// swept is set when the container has ended and a look at the process table found nothing that it left.
	swept bool
	// struck are those that it left where that look found some. It does not change.
	struck struck
	// failed is why the start failed; such a container is not in the books any more.
	failed error
	// reapBy is when to stop waiting for somebody else to reap an adopted process that has ended. Only the reaper
	// touches it.
	reapBy time.Time
}

// running reports whether a process is there, or is about to be.
func (c *container) running() bool { return c.Exit == nil }

// server is the supervisor. Its goroutines: one accepts connections, two serve each (reads, writes), one for each
// request, one reaps, one turns signals into wake-ups of the reaper. No goroutine belongs to a container.
type server struct {
	dir  string
	boot string
	// build is that of the program that runs.
	build      string
	records    records
	spawner    *spawner
	log        *slog.Logger
	idle       time.Duration
	generation int
	// cgroups are those that we live in, as the flag tells them.
	cgroups  string
	listener *net.UnixListener
	lock     *os.File

	// epoll watches the pidfds of all containers, and wakeup, an eventfd.
	epoll, wakeup int
	// spawning is held for reading from before a fork until the reaper knows the child, and for writing by who reaps
	// children that nobody knows, or re-executes us.
	spawning sync.RWMutex
	// launches is held for reading by each start, from its intent to its end, and for writing by who re-executes us. It
	// comes before spawning.
	launches sync.RWMutex

	mu         sync.Mutex
	containers map[string]*container
	byPidfd    map[int]*container
	byPID      map[int]*container
	// reserved are the launchers, and what they have started as long as the reaper does not hold it: no orphans.
	reserved map[int]bool
	conns    map[*conn]struct{}
	// starting counts the containers that have no process yet.
	starting int
	// met is set once a client has come.
	met       bool
	idleTimer *time.Timer
	// closing refuses new connections and new work.
	closing bool

	// pause holds a request to the reaper to rest at a safe point: it closes rested then, and waits for resume.
	pause chan pauseRequest
	// stop is closed, once, to end the process.
	stop     chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup
}

// conn is one client. Responses go through out, so that a client that doesn't read holds up nobody but itself.
type conn struct {
	*net.UnixConn
	// out is bounded: a watcher that is so far behind is cut off, and gets everything again when it comes back. It is
	// never closed; gone is, when the connection ends.
	out chan response
	// done is closed when no more responses come; what is queued is written then, and gone closed.
	done     chan struct{}
	gone     chan struct{}
	goneOnce sync.Once
	// slots bounds the requests in flight.
	slots chan struct{}
	// watching is guarded by server.mu.
	watching bool
}

const (
	maxConns    = 64
	maxInFlight = 64
	outQueue    = 1024
	// firstClientWait is the least time that a supervisor waits for its first client.
	firstClientWait = 10 * time.Second
)

func (c *conn) close() {
	c.goneOnce.Do(func() {
		close(c.gone)
		c.UnixConn.Close()
	})
}

// send queues a response to a request; it waits when the queue is full, until the connection ends.
func (c *conn) send(r response) {
	select {
	case c.out <- r:
	case <-c.gone:
	}
}

// push queues news, without ever waiting.
func (c *conn) push(r response) {
	select {
	case c.out <- r:
	case <-c.gone:
	default:
		c.close()
	}
}

// accept serves connections until the listener is closed.
func (s *server) accept() {
	defer s.wg.Done()
	for {
		nc, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely. Waiting is all we can do.
			s.log.Warn("cannot accept a connection", "err", err)
			select {
			case <-s.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err := checkPeer(nc); err != nil {
			s.log.Warn("connection refused", "err", err)
			nc.Close()
			continue
		}
		c := &conn{
			UnixConn: nc, out: make(chan response, outQueue), slots: make(chan struct{}, maxInFlight),
			done: make(chan struct{}), gone: make(chan struct{}),
		}
		s.mu.Lock()
		if s.closing || len(s.conns) >= maxConns {
			s.mu.Unlock()
			nc.Close()
			continue
		}
		s.conns[c] = struct{}{}
		s.met = true
		s.watchIdle()
		s.wg.Add(2)
		s.mu.Unlock()
		go s.readRequests(c)
		go s.writeResponses(c)
	}
}

// checkPeer lets in our own user and root.
func checkPeer(nc *net.UnixConn) error {
	raw, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("peer is user %d (process %d)", cred.Uid, cred.Pid)
	}
	return nil
}

func (s *server) readRequests(c *conn) {
	defer s.wg.Done()
	// Requests that wait for something end with their connection.
	ctx, cancel := context.WithCancel(context.Background())
	var handlers sync.WaitGroup
	defer func() {
		cancel()
		handlers.Wait()
		close(c.done)
		<-c.gone
		s.mu.Lock()
		delete(s.conns, c)
		s.watchIdle()
		s.mu.Unlock()
	}()
	for {
		var req request
		if err := readFrame(c, &req); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
				s.log.Warn("connection dropped", "err", err)
			}
			return
		}
		if req.Seq == 0 {
			s.log.Warn("connection dropped", "err", "request without a number")
			return
		}
		select {
		case c.slots <- struct{}{}:
		case <-c.gone:
			return
		}
		handlers.Go(func() {
			defer func() { <-c.slots }()
			r := s.handle(ctx, c, &req)
			r.Seq = req.Seq
			c.send(r)
		})
	}
}

func (s *server) writeResponses(c *conn) {
	defer s.wg.Done()
	defer c.close()
	for {
		select {
		case r := <-c.out:
			if !c.writeResponse(r) {
				return
			}
			continue
		case <-c.gone:
			return
		case <-c.done:
		}
		for {
			select {
			case r := <-c.out:
				if !c.writeResponse(r) {
					return
				}
			default:
				return
			}
		}
	}
}

// writeResponse reports whether the connection is of further use.
func (c *conn) writeResponse(r response) bool {
	frame, err := encodeFrame(r)
	if err != nil {
		if frame, err = encodeFrame(response{Seq: r.Seq, Error: refuse("internal", "%v", err)}); err != nil {
			return false
		}
	}
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err = c.Write(frame)
	return err == nil
}

// watchIdle starts or stops the clock that ends an idle supervisor. Called with mu held, whenever a connection or a
// container came or went.
func (s *server) watchIdle() {
	if s.idle <= 0 {
		return
	}
	busy := len(s.conns) > 0 || s.runningLocked() > 0
	switch {
	case busy && s.idleTimer != nil:
		s.idleTimer.Stop()
		s.idleTimer = nil
	case !busy && s.idleTimer == nil:
		wait := s.idle
		if !s.met {
			// Whoever started us may be slow to come.
			wait = max(wait, firstClientWait)
		}
		s.idleTimer = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.conns) == 0 && s.runningLocked() == 0 {
				s.log.Info("supervisor ends, nothing to do")
				s.endLocked()
			}
		})
	}
}

// runningLocked counts what has not ended. Called with mu held.
func (s *server) runningLocked() int { return len(s.byPID) + s.starting }

// endLocked ends the process, after the caller has made sure that no container runs. Called with mu held.
func (s *server) endLocked() {
	s.closing = true
	s.stopOnce.Do(func() { close(s.stop) })
}

// wake makes the reaper look around.
func (s *server) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(s.wakeup, one[:])
}

// run serves until somebody ends us. It returns with all goroutines gone.
func (s *server) run() {
	s.wg.Add(2)
	go s.accept()
	go s.reapLoop()
	s.mu.Lock()
	s.watchIdle()
	s.mu.Unlock()
	<-s.stop
	s.shutdown()
}

func (s *server) shutdown() {
	s.listener.Close()
	s.mu.Lock()
	s.closing = true
	if s.idleTimer != nil {
		s.idleTimer.Stop()
	}
	for c := range s.conns {
		// No more requests; answers under way, such as the one that says that we end, are written still.
		_ = c.CloseRead()
	}
	s.mu.Unlock()
	s.wake()
	s.wg.Wait()
	_ = os.Remove(filepath.Join(s.dir, socketName))
}
