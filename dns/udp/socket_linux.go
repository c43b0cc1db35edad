package udp

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	canShare   = true
	canPktinfo = true
)

// share lets further sockets of the same user be bound to the same port, and the kernel spread the clients among them.
func share(fd uintptr) error { return set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }

func set(fd uintptr, level, option, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, value))
}

// prepare sets what every socket needs.
func prepare(fd uintptr, pktinfo bool) error {
	// A privileged process may exceed the system's limit. Without a large buffer it works as well, until it is flooded.
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if set(fd, unix.SOL_SOCKET, o[0], socketBuffer) != nil {
			_ = set(fd, unix.SOL_SOCKET, o[1], socketBuffer)
		}
	}
	// The net package lets every socket send to all hosts of a network. No answer goes there.
	if err := set(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0); err != nil {
		return err
	}
	domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	on := 0
	if pktinfo {
		on = 1
	}
	// Nobody may make answers fall into fragments by telling of a narrow path (they could be replaced on the way): our
	// own are small enough for all. A socket of both families tells of IPv4 in the form of IPv6.
	if err := set(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT); err != nil {
		return err
	}
	if domain == unix.AF_INET {
		return set(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, on)
	}
	if err := set(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT); err != nil {
		return err
	}
	return set(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, on)
}
