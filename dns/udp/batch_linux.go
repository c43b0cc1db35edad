package udp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// minBatch is the smallest number of datagrams that is asked for. A loop begins with it, doubles as long as as many
	// come, and halves again: few buffers stay in the processor's cache, and the first of a batch does not wait for the
	// answers to all others, but what a crowd costs is shared by many.
	minBatch = 8
	// yieldAfter is how many batches without a pause are answered before other goroutines of the process get a turn.
	yieldAfter = 8
	// nameSize and controlSize hold a socket address of either family, and one control message that tells the address
	// which was asked.
	nameSize    = unix.SizeofSockaddrInet6
	controlSize = 48
)

// mmsghdr is struct mmsghdr of recvmmsg(2). Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// slot is what one datagram of a batch needs. The kernel writes to name and control; answers are sent with them.
type slot struct {
	inVec, outVec unix.Iovec
	control       [controlSize]byte // holds a struct cmsghdr, whose alignment it has behind the two above
	name          [nameSize]byte
	query, answer [BufferSize]byte
	_             [84]byte // makes the whole an odd multiple of a cache line, see BufferSize
}

// batch is one socket's loop. One goroutine uses it.
type batch struct {
	server   *Server
	slow     context.Context
	raw      syscall.RawConn
	handler  Handler
	counters *counters
	pktinfo  bool
	stopping atomic.Bool

	in, out [maxBatch]mmsghdr
	slots   []slot
	size    int // how many are asked for next
	streak  int // batches since the last pause
	err     error
}

// loop answers the datagrams of one socket until ctx ends; workers run under the slow context.
func (s *Server) loop(ctx, slow context.Context, conn *net.UDPConn, pktinfo bool, n *counters) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	b := s.newBatch(slow, raw, pktinfo, n)
	stop := context.AfterFunc(ctx, func() {
		b.stopping.Store(true)
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // wakes the loop where it is parked
	})
	defer stop()
	work := b.work
	for {
		b.err = nil
		err := raw.Read(work)
		if err == nil {
			err = b.err
		}
		switch done, err := closedOrDone(ctx, err); {
		case done:
			return err
		case errors.Is(b.err, unix.ENOSYS):
			// A sandbox, or a kernel older than all that Go runs on.
			return s.plain(ctx, slow, conn, n)
		case b.err != nil:
			n.readErrors.Add(1)
			pause(ctx)
		}
	}
}

func (s *Server) newBatch(slow context.Context, raw syscall.RawConn, pktinfo bool, n *counters) *batch {
	b := &batch{
		server: s, slow: slow, raw: raw, handler: s.config.Handler(), counters: n, pktinfo: pktinfo,
		slots: make([]slot, maxBatch), size: minBatch,
	}
	for i := range b.slots {
		t := &b.slots[i]
		t.inVec.Base, t.inVec.Len = &t.query[0], BufferSize
		h := &b.in[i].hdr
		h.Name, h.Iov = &t.name[0], &t.inVec
		h.SetIovlen(1)
		b.out[i].hdr.SetIovlen(1)
	}
	b.rearm(maxBatch)
	return b
}

// work takes batches and answers them until the socket is empty (false: park until there is more), reading fails, or the
// loop shall stop. All of it runs inside of one call of the poller, which costs more than the rest.
func (b *batch) work(fd uintptr) bool {
	for !b.stopping.Load() {
		// The call does not block, hence the scheduler need not know of it. That saves the monitor's looking after it: a
		// full batch takes longer than it has patience for.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in)), uintptr(b.size), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN:
			b.streak = 0
			return false
		case unix.EINTR:
			continue
		default:
			b.err = errno
			return true
		}
		b.counters.batch(int(n))
		b.send(fd, b.answer(int(n)))
		b.rearm(int(n))
		switch {
		case int(n) == b.size:
			b.size = min(2*b.size, maxBatch)
		case int(n) <= b.size/4:
			b.size = max(b.size/2, minBatch)
		}
		if b.streak++; b.streak == yieldAfter {
			b.streak = 0
			runtime.Gosched()
		}
	}
	return true
}

// rearm makes the first n headers ready to be filled again.
func (b *batch) rearm(n int) {
	for i := range n {
		h := &b.in[i].hdr
		h.Namelen = nameSize
		if b.pktinfo {
			h.Control = &b.slots[i].control[0]
			h.SetControllen(controlSize)
		}
	}
}

// answer has the first n datagrams answered, and returns how many answers there are to send.
func (b *batch) answer(n int) int {
	b.handler.Begin()
	out := 0
	for i := 0; i < n; {
		i, out = b.answerFrom(i, n, out)
	}
	b.counters.fast.Add(uint64(out))
	return out
}

// answerFrom answers the datagrams from i on. Where the handler panics it returns early, with the next one's index.
func (b *batch) answerFrom(i, n, out int) (next, sends int) {
	defer func() {
		if v := recover(); v != nil {
			b.server.config.Panicked(v)
			next, sends = i+1, out
		}
	}()
	for ; i < n; i++ {
		h, t := &b.in[i].hdr, &b.slots[i]
		from := address(t.name[:h.Namelen])
		if h.Flags&unix.MSG_TRUNC != 0 || from.Port() == 0 || b.pktinfo && !t.asked(h) {
			b.counters.odd.Add(1)
			continue
		}
		query := t.query[:b.in[i].n]
		answer, do := b.handler.Answer(query, t.answer[:], from)
		switch do {
		case Send:
			if len(answer) == 0 {
				continue
			}
			t.outVec.Base = &answer[0]
			t.outVec.SetLen(len(answer))
			o := &b.out[out].hdr
			o.Name, o.Namelen, o.Iov = h.Name, h.Namelen, &t.outVec
			o.Control, o.Controllen = h.Control, h.Controllen
			out++
		case Work, Wait:
			if b.server.passed(do, b.counters) {
				b.pass(do, query, from, t, h)
			}
		}
	}
	return n, out
}

// pass gives a datagram to a worker that was booked, with all that its answer needs.
func (b *batch) pass(kind Next, query []byte, from netip.AddrPort, t *slot, h *unix.Msghdr) {
	job := &slotCopy{name: t.name, control: t.control}
	job.hdr.Name, job.hdr.Namelen = &job.name[0], h.Namelen
	job.hdr.Iov = &job.vec
	job.hdr.SetIovlen(1)
	if h.Controllen > 0 {
		job.hdr.Control, job.hdr.Controllen = &job.control[0], h.Controllen
	}
	b.server.workers.run(b.slow, kind, bytes.Clone(query), from, func(answer []byte) {
		job.vec.Base = &answer[0]
		job.vec.SetLen(len(answer))
		var errno unix.Errno
		err := b.raw.Write(func(fd uintptr) bool {
			_, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&job.hdr)), unix.MSG_DONTWAIT)
			return true
		})
		if err != nil || errno != 0 {
			b.counters.unsent.Add(1)
		}
	})
}

// slotCopy is what the answer of a worker is sent with.
type slotCopy struct {
	hdr     unix.Msghdr
	vec     unix.Iovec
	control [controlSize]byte
	name    [nameSize]byte
}

// send sends the first n answers. What the system does not take is counted and given up, whether its queue is full, a
// filter forbids it or nobody can be reached: to wait for one who is slow, or is not there, would hold up all others, and
// who lacks an answer asks again.
func (b *batch) send(fd uintptr, n int) {
	for at := 0; at < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[at])), uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0 && sent > 0:
			// Fewer than asked for: the next one failed, and will say why.
			at += int(sent)
		case errno == unix.EINTR:
		default:
			b.counters.unsent.Add(1)
			at++
		}
	}
}

// address reads a socket address. The zone of an IPv6 address is left out: answers are sent to the name itself.
func address(name []byte) netip.AddrPort {
	switch {
	case len(name) >= unix.SizeofSockaddrInet4 && family(name) == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:8])), uint16(name[2])<<8|uint16(name[3]))
	case len(name) >= unix.SizeofSockaddrInet6 && family(name) == unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(name[8:24])).Unmap(), uint16(name[2])<<8|uint16(name[3]))
	}
	return netip.AddrPort{}
}

func family(name []byte) uint16 { return *(*uint16)(unsafe.Pointer(&name[0])) }
