package forward

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// systemCheck is how often it is looked whether the system's list of resolvers has changed.
const systemCheck = 3 * time.Second

// system is the resolvers that a resolv.conf file lists.
type system struct {
	path string
	self func(netip.AddrPort) bool

	current atomic.Pointer[group]
	next    atomic.Int64 // when to look again, in Unix nanoseconds
	mu      sync.Mutex   // held by the one who looks
	seen    os.FileInfo
}

// resolvers returns what the file lists. Whoever asks when it is time to looks at the file; nobody waits for that one.
func (s *system) resolvers(now time.Time) group {
	if now.UnixNano() >= s.next.Load() {
		if first := s.current.Load() == nil; first {
			s.mu.Lock()
			s.look(now)
			s.mu.Unlock()
		} else if s.mu.TryLock() {
			s.look(now)
			s.mu.Unlock()
		}
	}
	if g := s.current.Load(); g != nil {
		return *g
	}
	return nil
}

// look reads the file again if it is another than before. One that cannot be read changes nothing: editors and network
// managers take it away for a moment.
func (s *system) look(now time.Time) {
	if now.UnixNano() < s.next.Load() {
		return
	}
	s.next.Store(now.Add(systemCheck).UnixNano())
	info, err := os.Stat(s.path)
	if err != nil {
		return
	}
	if s.seen != nil && os.SameFile(s.seen, info) && s.seen.ModTime().Equal(info.ModTime()) && s.seen.Size() == info.Size() {
		return
	}
	data, err := os.ReadFile(s.path)
	if err != nil {
		return
	}
	s.seen = info
	var old group
	if g := s.current.Load(); g != nil {
		old = *g
	}
	g := newGroup(parseResolvConf(data), s.self, old)
	s.current.Store(&g)
}

// parseResolvConf lists the name servers of a resolv.conf (resolv.conf(5)), each once.
func parseResolvConf(data []byte) []netip.AddrPort {
	var list []netip.AddrPort
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err != nil || a.IsUnspecified() {
			continue
		}
		if at := netip.AddrPortFrom(a.Unmap(), 53); !slices.Contains(list, at) {
			list = append(list, at)
		}
	}
	return list
}
