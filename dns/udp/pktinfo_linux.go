package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// asked makes the control message that came with a datagram (it tells the address that was asked) into the one that the
// answer goes with (it tells the address to send from). False means that no answer can come from there: the datagram went
// to a crowd, and answers of all its members, sent to an address that may be forged, would be a flood.
func (t *slot) asked(h *unix.Msghdr) bool {
	if h.Flags&unix.MSG_CTRUNC != 0 || int(h.Controllen) < unix.SizeofCmsghdr {
		return false
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&t.control))
	data := unsafe.Pointer(&t.control[unix.CmsgLen(0)])
	switch {
	case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO && int(c.Len) == unix.CmsgLen(unix.SizeofInet4Pktinfo):
		p := (*unix.Inet4Pktinfo)(data)
		if p.Addr != p.Spec_dst {
			return false
		}
		// Which way the answer takes is the routing's affair, as it is for TCP.
		p.Ifindex = 0
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		return true
	case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO && int(c.Len) == unix.CmsgLen(unix.SizeofInet6Pktinfo):
		p := (*unix.Inet6Pktinfo)(data)
		if p.Addr[0] == 0xff {
			return false
		}
		// A link-local address is one of its link alone.
		if p.Addr[0] != 0xfe || p.Addr[1]&0xc0 != 0x80 {
			p.Ifindex = 0
		}
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet6Pktinfo))
		return true
	}
	return false
}
