//go:build linux

package dns_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is a connected UDP socket that takes and sends many datagrams with one system call.
type batch struct {
	fd       int
	in, out  []mmsghdr
	inVec    []unix.Iovec
	outVec   []unix.Iovec
	control  []byte // per datagram, for the time at which the system received it
	received [][]byte
}

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

const (
	maxAnswer   = 2048
	controlSize = 64
)

// newBatch connects to a server from a port of its own, on a given address.
func newBatch(server netip.AddrPort, size int) (*batch, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make a socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot have datagrams stamped: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot connect to %v: %w", server, err)
	}
	b := &batch{
		fd: fd, in: make([]mmsghdr, size), out: make([]mmsghdr, size), inVec: make([]unix.Iovec, size), outVec: make([]unix.Iovec, size),
		control: make([]byte, size*controlSize),
	}
	for i := range size {
		buf := make([]byte, maxAnswer)
		b.received = append(b.received, buf)
		b.inVec[i].Base, b.inVec[i].Len = &buf[0], maxAnswer
		b.in[i].hdr.Iov, b.in[i].hdr.Iovlen = &b.inVec[i], 1
		b.in[i].hdr.Control = &b.control[i*controlSize]
		b.out[i].hdr.Iov, b.out[i].hdr.Iovlen = &b.outVec[i], 1
	}
	return b, nil
}

func (b *batch) close() { unix.Close(b.fd) }

// receive returns how many datagrams it took, without waiting for any; see at.
func (b *batch) receive() (int, error) {
	for i := range b.in {
		b.in[i].hdr.Controllen = controlSize
	}
	return b.call(unix.SYS_RECVMMSG, b.in)
}

// at is the i-th datagram of the last call of receive, and when the system received it.
func (b *batch) at(i int) (data []byte, when time.Duration) {
	if c := b.control[i*controlSize:]; b.in[i].hdr.Controllen >= 32 {
		when = time.Duration(binary.NativeEndian.Uint64(c[16:]))*time.Second + time.Duration(binary.NativeEndian.Uint64(c[24:]))
	}
	return b.received[i][:b.in[i].n], when
}

// put makes data the i-th datagram to be sent; it must stay as it is until then.
func (b *batch) put(i int, data []byte) {
	b.outVec[i].Base, b.outVec[i].Len = &data[0], uint64(len(data))
}

// send sends the first n datagrams and returns how many the system took.
func (b *batch) send(n int) (int, error) { return b.call(unix.SYS_SENDMMSG, b.out[:n]) }

// The raw call: it never blocks, and the scheduler of Go need not know of it.
func (b *batch) call(trap uintptr, msgs []mmsghdr) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(trap, uintptr(b.fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, nil
		}
		return 0, e
	}
}
