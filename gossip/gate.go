package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// The gate looks at everything that comes in before memberlist does, and lets pass only what a node of this mesh may send. What
// memberlist 0.7 would make of the rest: 40 MB out of a small compressed datagram, 100 MB for the announced number of nodes of
// an exchange of 40 bytes, 20 MB for the announced length of a message, streams without a bound on their number or bytes,
// and an end of the process for an encrypted message without content. Datagrams and streams of another cluster or key pass:
// memberlist refuses them, and its log line is what the operator is told.
//
// Where a key is set, everything is decrypted here once more. That costs a microsecond a datagram, and keeps a node that has
// the key and lies from ending the others.
type gate struct {
	label   string
	keyring *memberlist.Keyring // nil: nothing is encrypted

	mu      sync.Mutex
	streams int            // guarded by mu
	bytes   int            // announced by open streams; guarded by mu
	hosts   map[string]use // guarded by mu
}

// use is what the open streams of one host take.
type use struct{ streams, bytes int }

const (
	// maxDatagram is more than twice what any profile sends.
	maxDatagram = 4 << 10
	// maxStream bounds what is read of one stream: an exchange of 65,536 nodes, or the largest message.
	maxStream = 16 << 20
	// Streams that are open at once, and the bytes that they announce, in all and for each host.
	maxStreams, maxHostStreams = 256, 64
	maxOpen, maxHostOpen       = 64 << 20, 24 << 20
	// maxMembers bounds the nodes that memberlist is let know.
	maxMembers = 65536
	// memberSize is what memberlist allocates for each announced node of an exchange.
	memberSize = 104
	// memberWire bounds what it takes there: names, numbers, meta data.
	memberWire = 1 << 10
)

// The parts of memberlist's format that matter here.
const (
	wirePing         = 0
	wireIndirectPing = 1
	wireAck          = 2
	wireSuspect      = 3
	wireAlive        = 4
	wireDead         = 5
	wirePushPull     = 6
	wireCompound     = 7
	wireUser         = 8
	wireEncrypted    = 10
	wireNack         = 11
	wireChecksum     = 12
	wireError        = 13
	wireLabel        = 244
)

var (
	errRefused = errors.New("refused at the gate")
	// errBroken is for a stream that broke before it had said whose it is. memberlist would take it for one of another cluster.
	errBroken = errors.New("broken off at the beginning")
)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errRefused}, args...)...)
}

// packet tells why a datagram is refused, if it is.
func (g *gate) packet(buf []byte) error {
	if len(buf) > maxDatagram {
		return refuse("a datagram of %d bytes", len(buf))
	}
	body, label, err := memberlist.RemoveLabelHeaderFromPacket(buf)
	if err != nil {
		return refuse("%v", err)
	}
	if label != g.label {
		return nil
	}
	if g.keyring != nil {
		if err := wellEncrypted(body); err != nil {
			return err
		}
		plain, ok := g.open(body, []byte(label))
		if !ok {
			return nil
		}
		body = plain
	}
	if len(body) >= 5 && body[0] == wireChecksum {
		body = body[5:]
	}
	if len(body) > 0 && body[0] == wireCompound {
		return compound(body[1:])
	}
	return command(body)
}

// compound checks the parts of a datagram of several messages, which are never nested.
func compound(b []byte) error {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return refuse("cut off")
	}
	n := int(b[0])
	lengths, rest := b[1:1+2*n], b[1+2*n:]
	for i := range n {
		l := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if l > len(rest) {
			return refuse("cut off")
		}
		if err := command(rest[:l]); err != nil {
			return err
		}
		rest = rest[l:]
	}
	return nil
}

// command checks one message of a datagram.
func command(b []byte) error {
	if len(b) == 0 {
		return refuse("an empty message")
	}
	switch b[0] {
	case wirePing, wireIndirectPing, wireAck, wireSuspect, wireAlive, wireDead, wireUser, wireNack:
		return nil
	}
	return refuse("a message of type %d in a datagram", b[0])
}

// wellEncrypted refuses what memberlist does not survive: the older encryption with its padding, and nothing at all.
func wellEncrypted(b []byte) error {
	switch {
	case len(b) <= encryptionOverhead:
		return refuse("an encrypted message of %d bytes", len(b))
	case b[0] != 1:
		return refuse("version %d of the encryption", b[0])
	}
	return nil
}

// open decrypts a message: version, nonce, text and tag.
func (g *gate) open(b, data []byte) ([]byte, bool) {
	for _, key := range g.keyring.GetKeys() {
		block, err := aes.NewCipher(key)
		if err != nil {
			continue
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			continue
		}
		if plain, err := gcm.Open(nil, b[1:1+gcm.NonceSize()], b[1+gcm.NonceSize():], data); err == nil {
			return plain, true
		}
	}
	return nil, false
}

// enter makes room for a stream from a host; leave has to follow.
func (g *gate) enter(host string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.hosts[host]
	if g.streams >= maxStreams || u.streams >= maxHostStreams {
		return false
	}
	if g.hosts == nil {
		g.hosts = map[string]use{}
	}
	g.streams++
	u.streams++
	g.hosts[host] = u
	return true
}

// announce reserves the bytes that a stream says it brings.
func (g *gate) announce(host string, n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.hosts[host]
	if g.bytes+n > maxOpen || u.bytes+n > maxHostOpen {
		return refuse("%d bytes are announced beside %d", n, g.bytes)
	}
	g.bytes += n
	u.bytes += n
	g.hosts[host] = u
	return nil
}

// leave gives back what a stream took.
func (g *gate) leave(host string, bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.hosts[host]
	g.streams--
	g.bytes -= bytes
	if u.streams--; u.streams == 0 {
		delete(g.hosts, host)
		return
	}
	u.bytes -= bytes
	g.hosts[host] = u
}

// stream is one end of a stream. What the other side begins with is checked when it is first read, which memberlist does under a
// deadline. One goroutine reads it.
type stream struct {
	net.Conn
	gate      *gate
	host      string
	refused   func()
	dialled   bool // this node opened it, and reads the answer
	announced int

	begun bool
	head  []byte // read by the gate and not by memberlist yet
	left  int    // bytes that may still be read
	err   error
	once  sync.Once
}

func hostOf(a net.Addr) string {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return ap.Addr().String()
	}
	return a.String()
}

// accept takes in a stream, or closes it and returns nil.
func (g *gate) accept(c net.Conn, refused func()) net.Conn {
	host := hostOf(c.RemoteAddr())
	if !g.enter(host) {
		closeQuietly(c)
		refused()
		return nil
	}
	return &stream{Conn: c, gate: g, host: host, refused: refused, left: maxStream}
}

// dialled takes in a stream that this node opened.
func (g *gate) dialled(c net.Conn, refused func()) net.Conn {
	return &stream{Conn: c, gate: g, refused: refused, dialled: true, left: maxStream}
}

// Read reads what was checked, and then the rest.
func (s *stream) Read(b []byte) (int, error) {
	if !s.begun {
		s.begun = true
		if s.err = s.check(); errors.Is(s.err, errRefused) {
			s.refused()
		}
	}
	switch {
	case s.err != nil:
		return 0, s.err
	case len(s.head) > 0:
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	case s.left <= 0:
		s.refused()
		s.err = refuse("a stream that goes on")
		return 0, s.err
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

// Close closes the stream and makes room for another.
func (s *stream) Close() error {
	s.once.Do(func() {
		if !s.dialled {
			s.gate.leave(s.host, s.announced)
		}
	})
	return s.Conn.Close()
}

// take reads n bytes more into head and returns them. Memory grows with what arrives, not with n.
func (s *stream) take(n int) ([]byte, error) {
	begin, want := len(s.head), len(s.head)+n
	for len(s.head) < want {
		have := len(s.head)
		s.head = slices.Grow(s.head, min(want-have, max(4096, have)))
		k, err := io.ReadFull(s.Conn, s.head[have:min(want, cap(s.head))])
		s.head = s.head[:have+k]
		s.left -= k
		if err != nil {
			return nil, err
		}
	}
	return s.head[begin:], nil
}

func (s *stream) reserve(n int) error {
	if n > maxStream {
		return refuse("%d bytes are announced", n)
	}
	if s.dialled { // this node opens few
		return nil
	}
	err := s.gate.announce(s.host, n)
	if err == nil {
		s.announced += n
	}
	return err
}

// check reads the beginning: the label, the type, and how much is announced. What belongs to others is left to memberlist, which
// reads no more of it.
func (s *stream) check() error {
	label, b, err := s.opening()
	if err != nil {
		if !s.dialled {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		return err
	}
	if foreign := label != s.gate.label || (b[0] == wireEncrypted) != (s.gate.keyring != nil); foreign {
		s.left = 0
		return nil
	}
	if b[0] != wireEncrypted {
		rest, err := s.begin(b[0], s.take)
		s.left = min(s.left, rest)
		return err
	}
	if b, err = s.take(4); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(b)
	if err := s.reserve(int(n)); err != nil {
		return err
	}
	data := append([]byte{wireEncrypted}, b...)
	if b, err = s.take(int(n)); err != nil {
		return err
	}
	s.left = 0
	if err := wellEncrypted(b); err != nil {
		return err
	}
	plain, ok := s.gate.open(b, append(data, label...))
	if !ok {
		return nil
	}
	kind, plain := plain[0], plain[1:]
	rest, err := s.begin(kind, func(n int) ([]byte, error) {
		if n > len(plain) {
			return nil, refuse("cut off")
		}
		b := plain[:n]
		plain = plain[n:]
		return b, nil
	})
	if err == nil && len(plain) > rest {
		err = refuse("%d bytes, %d were announced", len(plain), rest)
	}
	return err
}

// opening reads the label, and the first byte of what follows it.
func (s *stream) opening() (label string, b []byte, err error) {
	if b, err = s.take(1); err != nil || s.dialled {
		return s.gate.label, b, err // an answer does not repeat it
	}
	if b[0] != wireLabel {
		return "", b, nil
	}
	if b, err = s.take(1); err != nil {
		return "", nil, err
	}
	if b, err = s.take(int(b[0])); err != nil {
		return "", nil, err
	}
	label = string(b)
	b, err = s.take(1)
	return label, b, err
}

// begin checks the beginning of what is not encrypted any more, and returns how many bytes may follow it.
func (s *stream) begin(kind byte, take func(n int) ([]byte, error)) (rest int, err error) {
	switch {
	case kind == wirePing && !s.dialled, (kind == wireAck || kind == wireError) && s.dialled:
		return maxDatagram, nil
	case kind == wireUser && !s.dialled, kind == wirePushPull:
	default:
		return 0, refuse("a message of type %d in a stream", kind)
	}
	numbers, err := smallMap(take)
	if err != nil {
		return 0, err
	}
	nodes := numbers["Nodes"]
	if nodes > maxMembers {
		return 0, refuse("%d nodes in an exchange", nodes)
	}
	bytes := numbers["UserMsgLen"] + numbers["UserStateLen"]
	return int(nodes*memberWire + bytes), s.reserve(int(nodes*memberSize + bytes))
}

// smallMap reads a map of msgpack as memberlist's headers are: of a few short names to numbers and truth values. The largest number
// is what counts for a name that is given twice.
func smallMap(take func(n int) ([]byte, error)) (map[string]uint64, error) {
	b, err := take(1)
	if err != nil {
		return nil, err
	}
	if b[0]&0xf0 != 0x80 {
		return nil, refuse("a header that begins with %#x", b[0])
	}
	numbers := map[string]uint64{}
	for range b[0] & 0x0f {
		if b, err = take(1); err != nil {
			return nil, err
		}
		if b[0]&0xe0 != 0xa0 {
			return nil, refuse("a name that begins with %#x", b[0])
		}
		if b, err = take(int(b[0] & 0x1f)); err != nil {
			return nil, err
		}
		name := string(b)
		n, err := number(take)
		if err != nil {
			return nil, err
		}
		numbers[name] = max(numbers[name], n)
	}
	return numbers, nil
}

// number reads a number that is not negative, or a truth value, which counts as 0.
func number(take func(n int) ([]byte, error)) (uint64, error) {
	b, err := take(1)
	if err != nil {
		return 0, err
	}
	size := 0
	switch t := b[0]; {
	case t < 0x80:
		return uint64(t), nil
	case t == 0xc2, t == 0xc3:
		return 0, nil
	case t >= 0xcc && t <= 0xcf:
		size = 1 << (t - 0xcc)
	case t >= 0xd0 && t <= 0xd3:
		size = 1 << (t - 0xd0)
	default:
		return 0, refuse("a number that begins with %#x", t)
	}
	signed := b[0] >= 0xd0
	if b, err = take(size); err != nil {
		return 0, err
	}
	n := uint64(0)
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	if n > 1<<40 || signed && b[0]&0x80 != 0 {
		return 0, refuse("a number beyond all bounds")
	}
	return n, nil
}

// numeric tells whether an address is of numbers alone. memberlist takes addresses out of messages, and would have anything else
// looked up as a name, while no other datagram is read.
func numeric(addr string) bool {
	_, err := netip.ParseAddrPort(addr)
	return err == nil
}
