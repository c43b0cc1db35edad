package records

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// packedTask is a task in few octets: flags, then what is there, each with its length. Of the agent's id it has the last
// part, which is what names are made of. The id of a task is not in it where the name of the source ends in it.
type packedTask string

const (
	packedIDInSource = 1 << iota
	packedDiscovery
	packedDiscoveryIsName
	packedReverse
	packedOwnOnly
)

func appendTask(b []byte, t *Task, source string) []byte {
	var flags byte
	if strings.HasSuffix(source, t.ID) {
		flags |= packedIDInSource
	}
	if t.Discovery != "" {
		if flags |= packedDiscovery; t.Discovery == t.Name {
			flags |= packedDiscoveryIsName
		}
	}
	if t.Reverse {
		flags |= packedReverse
	}
	if t.OwnOnly {
		flags |= packedOwnOnly
	}
	b = append(b, flags)
	if flags&packedIDInSource != 0 {
		b = binary.AppendUvarint(b, uint64(len(t.ID)))
	} else {
		b = appendText(b, t.ID)
	}
	b = appendText(b, t.Name)
	if flags&packedDiscovery != 0 && flags&packedDiscoveryIsName == 0 {
		b = appendText(b, t.Discovery)
	}
	b = appendText(b, t.Framework)
	b = appendText(b, t.AgentID[strings.LastIndexByte(t.AgentID, '-')+1:])
	for _, list := range [][]netip.Addr{t.Addrs, t.Agent} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, a := range list {
			octets := a.Unmap().AsSlice()
			b = append(append(b, byte(len(octets))), octets...)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(t.HostPorts)))
	for _, p := range t.HostPorts {
		b = binary.BigEndian.AppendUint16(b, p)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Ports)))
	for _, p := range t.Ports {
		b = appendText(appendText(binary.BigEndian.AppendUint16(b, p.Number), p.Name), p.Protocol)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes a packed task apart. It is never wrong: only appendTask makes them.
type reader string

func (r *reader) number() int {
	n, shift := 0, 0
	for {
		c := r.take(1)[0]
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
		shift += 7
	}
}

func (r *reader) take(n int) string {
	s := string((*r)[:n])
	*r = (*r)[n:]
	return s
}

func (r *reader) text() string { return r.take(r.number()) }

func (r *reader) uint16() uint16 {
	s := r.take(2)
	return uint16(s[0])<<8 | uint16(s[1])
}

func (r *reader) addrs() []netip.Addr {
	n := r.number()
	if n == 0 {
		return nil
	}
	list := make([]netip.Addr, n)
	for i := range list {
		list[i], _ = netip.AddrFromSlice([]byte(r.take(int(r.take(1)[0]))))
	}
	return list
}

// unpack returns the task. Its strings are parts of the packed one.
func (p packedTask) unpack(source string) Task {
	r := reader(p)
	flags := r.take(1)[0]
	t := Task{Reverse: flags&packedReverse != 0, OwnOnly: flags&packedOwnOnly != 0}
	if flags&packedIDInSource != 0 {
		t.ID = source[len(source)-r.number():]
	} else {
		t.ID = r.text()
	}
	t.Name = r.text()
	if flags&packedDiscoveryIsName != 0 {
		t.Discovery = t.Name
	} else if flags&packedDiscovery != 0 {
		t.Discovery = r.text()
	}
	t.Framework, t.AgentID = r.text(), r.text()
	t.Addrs, t.Agent = r.addrs(), r.addrs()
	if n := r.number(); n > 0 {
		t.HostPorts = make([]uint16, n)
		for i := range t.HostPorts {
			t.HostPorts[i] = r.uint16()
		}
	}
	if n := r.number(); n > 0 {
		t.Ports = make([]Port, n)
		for i := range t.Ports {
			t.Ports[i] = Port{Number: r.uint16(), Name: r.text(), Protocol: r.text()}
		}
	}
	return t
}
