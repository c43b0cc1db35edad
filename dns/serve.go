package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/miekg/dns"

	"starling/dns/limit"
	"starling/dns/tcp"
	"starling/dns/udp"
)

const (
	headerLen = 12
	// maxWork and maxWait bound how many queries over UDP are at the general path at once: those below the domain, which
	// are computed, and all others, which may wait for resolvers and must not keep the former from being answered.
	maxWork, maxWait = 256, 1024
	// grace is how long answers that are in the making at the end may take.
	grace = 500 * time.Millisecond
)

// fast is the hot path of one loop.
type fast struct {
	*Server
	answered *rcodes
	// turn is where answers begin. A count would not do: who asks for A and AAAA in turns would have every other beginning only.
	turn rand.PCG
	now  time.Duration // of the batch, since the server was made
}

func newFast(s *Server) *fast {
	return &fast{Server: s, answered: s.metrics.loop(), turn: *rand.NewPCG(rand.Uint64(), rand.Uint64())}
}

func (f *fast) Begin() {
	if f.limiter != nil {
		f.now = time.Since(f.began)
	}
}

func (f *fast) Answer(query, buf []byte, from netip.AddrPort) ([]byte, udp.Next) {
	// An answer is never answered: two servers would talk to each other for ever.
	if len(query) < headerLen || query[2]&0x80 != 0 {
		f.metrics.malformed.Inc()
		return nil, udp.Drop
	}
	// Nobody can forge an address of this machine from elsewhere.
	if f.limiter != nil && !from.Addr().IsLoopback() {
		switch v := f.limiter.Take(f.now, from.Addr()); {
		case v == limit.Answer || f.general.access.known(from.Addr()):
		case v == limit.Slip:
			if answer := truncated(query, buf); answer != nil {
				f.metrics.slipped.Inc()
				return answer, udp.Send
			}
			fallthrough
		default:
			f.metrics.limited.Inc()
			return nil, udp.Drop
		}
	}
	if f.synced.Load() {
		if answer := f.zone.Answer(query, buf, uint32(f.turn.Uint64()>>32)); answer != nil {
			if answer[2]&0x02 != 0 {
				f.metrics.truncated.Inc()
			}
			if f.limiter != nil {
				f.limiter.Charge(f.now, from.Addr(), len(answer))
			}
			f.answered.count(answer)
			return answer, udp.Send
		}
	}
	if within(query, f.apex) {
		return nil, udp.Work
	}
	return nil, udp.Wait
}

// work is the general path of a query over UDP. A panic there costs its own query only.
func (s *Server) work(ctx context.Context, query []byte, from netip.AddrPort) (answer []byte) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
			answer = failure(query, dns.RcodeServerFailure)
		}
	}()
	answer = s.slow(ctx, query, from)
	if s.limiter != nil {
		s.limiter.Charge(time.Since(s.began), from.Addr(), len(answer))
	}
	s.metrics.answered.count(answer)
	if len(answer) > 2 && answer[2]&0x02 != 0 {
		s.metrics.truncated.Inc()
	}
	return answer
}

// serveTCP answers a query over TCP, always on the general path.
func (s *Server) serveTCP(ctx context.Context, c *tcp.Query) {
	query := c.Message
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
			_ = c.Send(failure(query, dns.RcodeServerFailure))
		}
	}()
	if query[2]&0x80 != 0 {
		return
	}
	s.metrics.general.Inc()
	var q dns.Msg
	var err error
	if e := q.Unpack(query); e != nil {
		s.metrics.malformed.Inc()
		err = c.Send(malformed(query))
	} else {
		err = s.answerTCP(ctx, &tcpWriter{s, ctx, c}, &q, client{addr: c.From().Addr(), tcp: true})
	}
	if err != nil && ctx.Err() == nil {
		s.metrics.unsent.Inc()
	}
}

// tcpWriter sends messages as answers to a query.
type tcpWriter struct {
	server *Server
	ctx    context.Context // of the query
	query  *tcp.Query
}

func (w *tcpWriter) WriteMsg(m *dns.Msg) error {
	b, err := w.pack(m)
	if err != nil {
		return err
	}
	w.server.metrics.answered.count(b)
	return w.query.Send(b)
}

func (w *tcpWriter) pack(m *dns.Msg) ([]byte, error) {
	done, ok := w.server.general.compute(w.ctx)
	if !ok {
		return nil, w.ctx.Err()
	}
	defer done()
	return m.Pack()
}

// panicked counts a panic, which is a bug, and logs the first of a minute.
func (s *Server) panicked(v any) {
	s.metrics.panics.Inc()
	last, now := s.lastPanic.Load(), int64(time.Since(s.began)+time.Minute)
	if now-last >= int64(time.Minute) && s.lastPanic.CompareAndSwap(last, now) {
		s.config.Log.Error("answering a DNS query panicked, others may have since the last of these", "reason", v, "stack", string(debug.Stack()))
	}
}

// failure is an answer that bears nothing but an error, to a query that has at least a header.
func failure(query []byte, rcode byte) []byte {
	answer := make([]byte, headerLen)
	copy(answer, query[:4])
	answer[2] = 0x80 | query[2]&0x79 // the operation and "recursion desired" are repeated
	answer[3] = rcode
	return answer
}

// truncated is an answer that says nothing but that the question is to be asked over TCP; nil where there is no question.
func truncated(query, buf []byte) []byte {
	end := questionEnd(query)
	if end == 0 {
		return nil
	}
	answer := append(buf[:0], query[:end]...)
	answer[2] = 0x80 | query[2]&0x79 | 0x02
	answer[3] = 0
	copy(answer[4:headerLen], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	return answer
}

// questionEnd is where the first question ends; 0 where there is none, or its name is not a plain one.
func questionEnd(query []byte) int {
	for i := headerLen; i < len(query); i += 1 + int(query[i]) {
		switch {
		case query[i] > 63:
			return 0
		case query[i] == 0:
			if i+5 > len(query) || query[4] == 0 && query[5] == 0 {
				return 0
			}
			return i + 5
		}
	}
	return 0
}

// wireApex is a domain as it stands in a query, with its end.
func wireApex(domain string) string {
	var b strings.Builder
	for label := range strings.SplitSeq(domain, ".") {
		b.WriteByte(byte(len(label)))
		b.WriteString(label)
	}
	b.WriteByte(0)
	return b.String()
}

// within tells whether the first question's name ends with the labels of a lower-case domain.
func within(query []byte, apex string) bool {
	end := questionEnd(query)
	if end == 0 {
		return false
	}
	name := query[:end-4]
	for i := headerLen; i < len(name); i += 1 + int(name[i]) {
		if len(name)-i == len(apex) {
			return strings.EqualFold(string(name[i:]), apex)
		}
	}
	return false
}
