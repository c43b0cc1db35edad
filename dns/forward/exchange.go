package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// payload is the largest answer that we take over UDP: it passes every link unfragmented (DNS flag day 2020).
const payload = 1232

// errForeign is an answer that is not one to our question: a forged one, or one that comes late.
var errForeign = errors.New("not an answer to the question")

// upstreamQuery is what we ask a resolver: the client's question with an id and an EDNS0 record of our own, so that none of
// the client's options leave.
func upstreamQuery(q question) *dns.Msg {
	m := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id: uint16(rand.Uint32()), RecursionDesired: q.recursion, CheckingDisabled: q.unchecked,
			AuthenticatedData: true, // asks to be told (RFC 6840, 5.7)
		},
		Question: []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: q.class}},
	}
	return m.SetEdns0(payload, q.dnssec)
}

// ask asks one resolver. An error means that it was not heard.
func (f *Forwarder) ask(ctx context.Context, addr netip.AddrPort, q question, tcp bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	m := upstreamQuery(q)
	answer, err := f.roundTrip(ctx, addr, m, tcp)
	if err != nil {
		return nil, err
	}
	if (answer.Rcode == dns.RcodeFormatError || answer.Rcode == dns.RcodeNotImplemented) && answer.IsEdns0() == nil && !q.dnssec {
		// One who does not know EDNS0 says so this way (RFC 6891, 7).
		m = upstreamQuery(q)
		m.Extra = nil
		return f.roundTrip(ctx, addr, m, tcp)
	}
	return answer, nil
}

func (f *Forwarder) roundTrip(ctx context.Context, addr netip.AddrPort, m *dns.Msg, tcp bool) (*dns.Msg, error) {
	query, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("cannot ask for %q: %w", m.Question[0].Name, err)
	}
	network, exchange := "udp", f.overUDP
	if tcp {
		network, exchange = "tcp", f.overTCP
	}
	conn, err := f.config.Dial(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	// A context that ends early ends the wait too.
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	answer, err := exchange(ctx, conn, m, query, deadline)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return answer, err
}

// resend is when a datagram is sent again first, as a part of the timeout; then after twice that, and so on. One that is
// lost must not make a resolver look dead.
const resend = 5

func (f *Forwarder) overUDP(ctx context.Context, conn net.Conn, m *dns.Msg, query []byte, deadline time.Time) (*dns.Msg, error) {
	buf := make([]byte, 4096)
	for wait := f.config.Timeout / resend; ; wait *= 2 {
		if _, err := conn.Write(query); err != nil {
			return nil, err
		}
		until := time.Now().Add(wait)
		if until.After(deadline) {
			until = deadline
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err // it ended before the deadline was set anew
		}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) && until.Before(deadline) {
					break
				}
				return nil, err
			}
			// Whatever is not the answer is not looked at: the answer may still come.
			if answer, err := check(buf[:n], m); err == nil {
				return answer, nil
			}
			f.metrics.foreign.Inc()
		}
	}
}

func (f *Forwarder) overTCP(ctx context.Context, conn net.Conn, m *dns.Msg, query []byte, deadline time.Time) (*dns.Msg, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	answer, err := check(buf, m)
	if err != nil {
		f.metrics.foreign.Inc()
	}
	return answer, err
}

// check unpacks what may be the answer to a query.
func check(packet []byte, q *dns.Msg) (*dns.Msg, error) {
	if len(packet) < 12 || binary.BigEndian.Uint16(packet) != q.Id || packet[2]&0x80 == 0 {
		return nil, errForeign
	}
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		// A truncated message may end within a record: that it is truncated is what counts.
		if packet[2]&0x02 == 0 || len(m.Question) != 1 {
			return nil, errForeign
		}
		m.Answer, m.Ns, m.Extra = nil, nil, nil
	}
	asked := q.Question[0]
	switch {
	case m.Opcode != dns.OpcodeQuery:
		return nil, errForeign
	case len(m.Question) == 0 && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented):
		return m, nil // one that did not understand the question cannot repeat it
	case len(m.Question) != 1 || m.Question[0].Qtype != asked.Qtype || m.Question[0].Qclass != asked.Qclass ||
		!strings.EqualFold(m.Question[0].Name, asked.Name):
		return nil, errForeign
	}
	return m, nil
}
