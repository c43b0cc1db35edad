package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"starling/gossip/keyring"
	"starling/gossip/record"
)

// The messages between nodes. Each begins with a version and a kind; numbers are unsigned varints, byte strings are preceded by
// their length.
//
//	hot      repeated delta (record's wire form)    news, to be passed on
//	repair   repeated delta                         what the other lacked
//	summary  name, flags, 64 x 8 bytes, address     begins a round of anti-entropy
//	digests  name, flags, mask (8 bytes), digests   all that the sender has in the buckets of the mask, or some of the others
//	bye      name, generation                       a node leaves on purpose; passed on
//	claim    name, nonce, uptime in ms, address     "are you another one of my name?"
//	held     name, nonce, uptime in ms, address     "yes, and so old": the answer, with the nonce of the claim
//	keys     name, serial, repeated secret          the cluster's keyring, to a node that is behind; only where all is encrypted
//	ask      name, nonce, address, name asked       "are you there?"; to another node: "did it say goodbye?", which a bye answers
//	answer   name, nonce of the question            "I am"
//
// Unknown kinds are counted and dropped, so a later release may add some; a kind itself never changes. Unknown bits of flags are
// ignored: they may ask only for what need not be given. A message of another version is refused alone, as is each unknown delta in a
// message: the sender stays a member. For a new version the rule of package record holds: read it first, write it later.
//
// History:
//
//	1  2026-11  first version
const messageVersion = 1

type kind byte

const (
	kindHot kind = 1 + iota
	kindRepair
	kindSummary
	kindDigests
	kindBye
	kindClaim
	kindHeld
	kindKeys
	kindAsk
	kindAnswer
)

// Flags of summaries and digests.
const (
	// wantReply asks the receiver of digests for its own where it lacks something.
	wantReply = 1 << iota
	// overStream asks for answers over streams: datagrams may not pass.
	overStream
)

// maxMessage bounds what is taken in: a whole record and some.
const maxMessage = 9 << 20

var errMessage = errors.New("malformed message")

// message is a decoded message. Which fields are set depends on the kind. Deltas and digests alias the input.
type message struct {
	kind    kind
	deltas  [][]byte
	node    string
	summary record.Summary
	flags   uint64
	mask    uint64
	digests []record.Digest
	number  uint64 // a generation, a nonce or a serial
	uptime  time.Duration
	addr    string
	secrets []Secret
	to      string
}

func appendHeader(dst []byte, k kind) []byte { return append(dst, messageVersion, byte(k)) }

func appendBlob[T string | []byte](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// append appends the encoded message.
func (m *message) append(dst []byte) []byte {
	dst = appendHeader(dst, m.kind)
	switch m.kind {
	case kindHot, kindRepair:
		for _, d := range m.deltas {
			dst = appendBlob(dst, d)
		}
		return dst
	}
	dst = appendBlob(dst, m.node)
	switch m.kind {
	case kindSummary:
		dst = binary.AppendUvarint(dst, m.flags)
		for _, b := range m.summary {
			dst = binary.BigEndian.AppendUint64(dst, b)
		}
		dst = appendBlob(dst, m.addr)
	case kindDigests:
		dst = binary.AppendUvarint(dst, m.flags)
		dst = binary.BigEndian.AppendUint64(dst, m.mask)
		dst = record.AppendDigests(dst, m.digests)
	case kindBye:
		dst = binary.AppendUvarint(dst, m.number)
	case kindClaim, kindHeld:
		dst = binary.AppendUvarint(dst, m.number)
		dst = binary.AppendUvarint(dst, uint64(m.uptime.Milliseconds()))
		dst = appendBlob(dst, m.addr)
	case kindKeys:
		dst = binary.AppendUvarint(dst, m.number)
		for _, s := range m.secrets {
			dst = appendBlob(dst, []byte(s))
		}
	case kindAsk:
		dst = binary.AppendUvarint(dst, m.number)
		dst = appendBlob(dst, m.addr)
		dst = appendBlob(dst, m.to)
	case kindAnswer:
		dst = binary.AppendUvarint(dst, m.number)
	}
	return dst
}

// reader takes a message apart.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) blob() []byte { return r.take(r.uvarint()) }

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) name() string {
	b := r.blob()
	if len(b) == 0 || len(b) > 255 {
		r.bad = true
	}
	return string(b)
}

// parseMessage decodes a message. The deltas alias b.
func parseMessage(b []byte) (*message, error) {
	switch {
	case len(b) > maxMessage:
		return nil, fmt.Errorf("%w: %d bytes", errMessage, len(b))
	case len(b) < 2:
		return nil, fmt.Errorf("%w: cut off", errMessage)
	case b[0] != messageVersion:
		return nil, fmt.Errorf("%w: version %d, this software knows %d", errMessage, b[0], messageVersion)
	}
	m := &message{kind: kind(b[1])}
	r := &reader{b: b[2:]}
	switch m.kind {
	case kindHot, kindRepair:
		for len(r.b) > 0 {
			m.deltas = append(m.deltas, r.blob())
		}
	case kindSummary:
		m.node = r.name()
		m.flags = r.uvarint()
		for i := range m.summary {
			m.summary[i] = r.uint64()
		}
		m.addr = string(r.blob())
	case kindDigests:
		m.node = r.name()
		m.flags = r.uvarint()
		m.mask = r.uint64()
		if !r.bad {
			ds, err := record.ParseDigests(r.b)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errMessage, err)
			}
			m.digests, r.b = ds, nil
		}
	case kindBye:
		m.node = r.name()
		m.number = r.uvarint()
	case kindClaim, kindHeld:
		m.node = r.name()
		m.number = r.uvarint()
		m.uptime = time.Duration(min(r.uvarint(), 1<<40)) * time.Millisecond
		m.addr = string(r.blob())
	case kindKeys:
		m.node = r.name()
		m.number = r.uvarint()
		for len(r.b) > 0 && len(m.secrets) < keyring.MaxSecrets {
			m.secrets = append(m.secrets, Secret(bytes.Clone(r.blob()))) // they outlive the message
		}
	case kindAsk:
		m.node = r.name()
		m.number = r.uvarint()
		m.addr = string(r.blob())
		m.to = r.name()
	case kindAnswer:
		m.node = r.name()
		m.number = r.uvarint()
	default:
		return nil, fmt.Errorf("%w: kind %d is not known", errMessage, m.kind)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: kind %d", errMessage, m.kind)
	}
	return m, nil
}
