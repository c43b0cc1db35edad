//go:build linux

package dns_test

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// badServer answers like a server that errs in ways that a loader must notice: it keeps every fifth question, and of the
// others answers some twice, with another id, rcode or question. It counts the questions that have come.
func badServer(t *testing.T) (at netip.AddrPort, came *atomic.Uint64) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ended, came := make(chan struct{}), new(atomic.Uint64)
	t.Cleanup(func() { conn.Close(); <-ended })
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			came.Add(1)
			answer := slices.Clone(buf[:n])
			answer[2] |= 0x80
			switch i % 20 {
			case 0, 5, 10, 15:
				continue
			case 1:
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			case 2:
				answer[0] ^= 0x80
			case 3:
				answer[3] |= 2
			case 4:
				answer[14] ^= 1
			}
			_, _ = conn.WriteToUDPAddrPort(answer, from)
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String()), came
}

func TestTheLoaderNoticesWhatAServerDoesWrong(t *testing.T) {
	for name, l := range map[string]load{
		"at a rate":  {sockets: 4, rate: 400, lasts: time.Second},
		"in windows": {sockets: 1, window: 20, lasts: patience / 2}, // each window is asked once: the lost fill it
	} {
		t.Run(name, func(t *testing.T) {
			l.questions = []question{newQuestion("a.example", 1, false, 0, 0), newQuestion("b.example", 33, true, 0, 0)}
			var o *outcome
			for try := 1; ; try++ {
				var came *atomic.Uint64
				var err error
				l.server, came = badServer(t)
				l.cpu = -1
				if o, err = l.run(); err != nil {
					t.Fatal(err)
				}
				if o.sent >= 20 && came.Load() == o.sent && o.answered > 0 {
					break
				}
				// A machine that does other work may let neither run for the whole time, or have no room for all that comes when one does:
				// then the server is not the only one that errs.
				if try == 10 {
					t.Fatalf("%d questions were asked, %d came, %d were answered in time", o.sent, came.Load(), o.answered)
				}
			}
			// Of 20 questions 4 are kept and one has its id changed: both are lost. One rcode and one question are wrong; one answer
			// is doubled and, with the changed id, astray. A busy machine may ask few of them: those are counted out.
			of := func(kinds ...uint64) (n uint64) {
				for i := range o.sent {
					if slices.Contains(kinds, i%20) {
						n++
					}
				}
				return n
			}
			for _, c := range []struct {
				what      string
				got, want uint64
			}{
				{"lost questions", o.lost, of(0, 2, 5, 10, 15)}, {"wrong answers", o.wrong, of(3, 4)}, {"answers astray", o.stray, of(1, 2)},
			} {
				if off := max(c.got, c.want) - min(c.got, c.want); off > max(1, o.sent/25) {
					t.Errorf("%d %s of %d questions, want %d", c.got, c.what, o.sent, c.want)
				}
			}
			if o.answered == 0 || o.complaint == "" || (l.rate > 0 && o.latency.quantile(0.5) <= 0) {
				t.Errorf("outcome %+v, want answers with a latency, and a complaint", o)
			}
		})
	}
}
