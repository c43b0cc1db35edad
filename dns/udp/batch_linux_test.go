package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// manual is a batch whose work the test does, and a client of its socket.
func manual(t testing.TB, bound string) (*batch, func(), *net.UDPConn) {
	t.Helper()
	sockets, err := Listen(t.Context(), netip.MustParseAddr(bound), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockets.Close() })
	raw, err := sockets.conns[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{
		Handler: func() Handler { return plainEcho{} }, Panicked: func(v any) { t.Error(v) },
		Slow: func(_ context.Context, query []byte, _ netip.AddrPort) []byte { return query }, MaxWork: 1,
	})
	b := s.newBatch(t.Context(), raw, sockets.pktinfo, &counters{})
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 5), Port: int(sockets.Addr().Port())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	do := func(fd uintptr) { b.work(fd) }
	work := func() {
		if err := raw.Control(do); err != nil {
			t.Fatal(err)
		}
	}
	return b, work, c
}

// plainEcho answers with the query.
type plainEcho struct{}

func (plainEcho) Begin() {}
func (plainEcho) Answer(query, buf []byte, _ netip.AddrPort) ([]byte, Next) {
	return append(buf[:0], query...), Send
}

func TestADatagramAllocatesNothing(t *testing.T) {
	for _, bound := range []string{"127.0.0.5", "0.0.0.0", "::"} {
		if bound == "::" && !hasIPv6() {
			continue
		}
		b, work, c := manual(t, bound)
		query, buf := []byte("a query"), make([]byte, 100)
		n := testing.AllocsPerRun(100, func() {
			for range 20 {
				_, _ = c.Write(query)
			}
			work()
			for range 20 {
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
		})
		if n != 0 {
			t.Errorf("bound to %s: %v allocations for 20 datagrams", bound, n)
		}
		// 8 were asked for at first, then more.
		if b.size != 16 && b.size != 32 {
			t.Errorf("%d datagrams are asked for after batches of 20", b.size)
		}
	}
}

// One answer that cannot be sent does not keep the others of its batch from being sent.
func TestWhatCannotBeSentIsPassedOver(t *testing.T) {
	b, work, c := manual(t, "127.0.0.5")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, bad := range [][]int{{0}, {3}, {1, 2, 6}, {7}, {0, 1, 2, 3, 4, 5, 6, 7}} {
		before := b.counters.unsent.Load()
		for i := range 8 {
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		// Who asked is 255.255.255.255 now, to whom the system lets nobody send unasked.
		b.handler = forging{b, bad}
		work()
		for i := range 8 - len(bad) {
			if _, err := c.Read(make([]byte, 10)); err != nil {
				t.Fatalf("%v bad: answer %d: %v", bad, i, err)
			}
		}
		if n := b.counters.unsent.Load() - before; n != uint64(len(bad)) {
			t.Errorf("%v bad: %d unsent answers counted", bad, n)
		}
	}
}

// forging replaces the addresses of some askers of a batch.
type forging struct {
	batch *batch
	bad   []int
}

func (f forging) Begin() {
	for _, i := range f.bad {
		copy(f.batch.slots[i].name[4:8], "\xff\xff\xff\xff")
	}
}

func (f forging) Answer(query, buf []byte, from netip.AddrPort) ([]byte, Next) {
	return plainEcho{}.Answer(query, buf, from)
}

// An answer that a worker cannot send is counted as well.
func TestAWorkersAnswerThatCannotBeSentIsCounted(t *testing.T) {
	b, work, c := manual(t, "127.0.0.5")
	b.handler = passing{forging{b, []int{0}}}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	work()
	b.server.workers.wait()
	if n := b.counters.unsent.Load(); n != 1 {
		t.Errorf("%d unsent answers counted, want 1", n)
	}
}

type passing struct{ forging }

func (passing) Answer([]byte, []byte, netip.AddrPort) ([]byte, Next) { return nil, Work }

// Datagrams to a crowd are not answered: the answers of all its members would go to one, whose address may be forged.
func TestDatagramsToACrowdAreNotAnswered(t *testing.T) {
	lo := netip.MustParseAddr("127.0.0.1")
	for crowd, to := range map[string]net.IP{"broadcast": net.IPv4(127, 255, 255, 255), "multicast": net.IPv4allsys} {
		t.Run(crowd, func(t *testing.T) {
			r := run(t, "0.0.0.0", 1)
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP(lo.AsSlice())})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if e := raw.Control(func(fd uintptr) {
				err = errors.Join(
					unix.SetsockoptInet4Addr(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, lo.As4()),
					// A member of the group on this machine is enough for all its sockets to get what goes there.
					unix.SetsockoptIPMreq(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: [4]byte(to.To4()), Interface: lo.As4()}))
			}); e != nil || err != nil && crowd == "multicast" {
				t.Fatal(e, err)
			}
			if _, err := conn.WriteToUDP([]byte("q"), &net.UDPAddr{IP: to, Port: int(r.port)}); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.WriteToUDP([]byte("q"), &net.UDPAddr{IP: net.IP(lo.AsSlice()), Port: int(r.port)}); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, from, err := conn.ReadFromUDP(make([]byte, 100)); err != nil || !from.IP.IsLoopback() {
				t.Errorf("answer from %v, %v", from, err)
			}
			if st := r.Stats(); st.Received != 2 || st.Fast != 1 || st.Odd != 1 {
				t.Errorf("%+v, want one answer of two", st)
			}
		})
	}
}

// Loopback has no way for crowds of IPv6, so what the system tells of them is made up.
func TestCrowdsOfIPv6(t *testing.T) {
	for asked, want := range map[string]bool{"ff02::1": false, "ff05::fb": false, "fe80::1": true, "2001:db8::1": true} {
		var s slot
		c := (*unix.Cmsghdr)(unsafe.Pointer(&s.control))
		c.Level, c.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		c.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&s.control[unix.CmsgLen(0)]))
		p.Addr, p.Ifindex = netip.MustParseAddr(asked).As16(), 7
		var h unix.Msghdr
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet6Pktinfo))
		if got := s.asked(&h); got != want {
			t.Errorf("asked at %s: an answer may go: %v, want %v", asked, got, want)
		}
		if link := asked == "fe80::1"; want && (p.Ifindex == 7) != link {
			t.Errorf("asked at %s: the answer is bound to link %d", asked, p.Ifindex)
		}
	}
}

// What moving a datagram in and out costs beside the system's own work, the client's among it.
func BenchmarkLoop(b *testing.B) {
	for _, bound := range []string{"127.0.0.5", "0.0.0.0", "::"} {
		b.Run(bound, func(b *testing.B) {
			_, work, c := manual(b, bound)
			query, buf := make([]byte, 40), make([]byte, 100)
			var spent time.Duration
			b.ReportAllocs()
			for b.Loop() {
				for range 32 {
					_, _ = c.Write(query)
				}
				at := time.Now()
				work()
				spent += time.Since(at)
				for range 32 {
					_, _ = c.Read(buf)
				}
			}
			b.ReportMetric(float64(spent)/float64(b.N)/32, "ns/datagram")
		})
	}
}
