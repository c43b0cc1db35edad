package record

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// The wire format of a delta or a whole record. All numbers are unsigned varints, all byte strings are preceded by
// their length.
//
//	version      1 byte   formatVersion
//	flags                 headerWhole, headerExt, headerTail
//	node         bytes    1 to 255
//	generation            1 or more
//	floor                 the sender's floor
//	[to]                  only with headerWhole: the version up to which the record is whole
//	[to, covers]          only with headerTail: like an entry without key at the end, where the newest entry that the
//	                      sender had was superseded by one that came early
//	[ext]        bytes    only with headerExt: the age of the newest entry in milliseconds when it was sent; what follows that, or
//	                      cannot be read, is for versions to come and skipped
//	count
//	count times, in order of versions:
//	  flags               entryDeleted, entryExt
//	  step                version, less that of the entry before (or 0)
//	  covers              how many versions it covers, itself included: the sender knows of nothing live in the others
//	  key        bytes
//	  [value]    bytes    not with entryDeleted
//	  [ext]      bytes    only with entryExt: for versions to come, kept and passed on
//
// A flag that is not listed makes the message unreadable, so it is for changes that old readers must not miss; everything else
// goes into the two ext fields.
//
// History:
//
//	1  2026-11  first version
//	   2026-11  the age in the extension of the header
const formatVersion = 1

const (
	headerWhole = 1 << iota
	headerExt
	headerTail
)

const (
	entryDeleted = 1 << iota
	entryExt
)

// entry is an item on the wire, with the oldest version that it covers, exclusive.
type entry struct {
	*item
	from uint64
}

// delta is a decoded message.
type delta struct {
	node       string
	generation uint64
	floor      uint64
	whole      bool
	to         uint64 // only if whole
	tail       span   // only if not empty
	age        age    // of the newest entry
	entries    []entry
}

// age is how old a change is, in milliseconds and one more: 0 means that it is not known. Each node adds the time that a change has
// spent there; what it spent on the network is not in it, and no two clocks are compared.
type age uint64

// maxAge is the oldest age that is believed: thirty years.
const maxAge = age(1e12)

func newAge(d time.Duration) age { return age(max(d, 0).Round(time.Millisecond)/time.Millisecond) + 1 }

func (a age) duration() time.Duration { return time.Duration(a-1) * time.Millisecond }

// parseAge reads the extension of a header, whatever a later release has made of it.
func parseAge(ext []byte) age {
	v, n := binary.Uvarint(ext)
	if n <= 0 || v >= uint64(maxAge) {
		return 0
	}
	return age(v) + 1
}

func appendBytes[T string | []byte](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// appendWire appends the encoded delta.
func (d *delta) appendWire(dst []byte) []byte {
	dst = append(dst, formatVersion)
	flags := uint64(0)
	if d.whole {
		flags |= headerWhole
	}
	if d.tail.to > 0 {
		flags |= headerTail
	}
	if d.age > 0 {
		flags |= headerExt
	}
	dst = binary.AppendUvarint(dst, flags)
	dst = appendBytes(dst, d.node)
	dst = binary.AppendUvarint(dst, d.generation)
	dst = binary.AppendUvarint(dst, d.floor)
	if d.whole {
		dst = binary.AppendUvarint(dst, d.to)
	}
	if d.tail.to > 0 {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, d.tail.to), d.tail.to-d.tail.from)
	}
	if d.age > 0 {
		dst = appendBytes(dst, binary.AppendUvarint(nil, uint64(d.age-1)))
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.entries)))
	last := uint64(0)
	for _, e := range d.entries {
		flags := uint64(0)
		if e.deleted {
			flags |= entryDeleted
		}
		if e.ext != "" {
			flags |= entryExt
		}
		dst = binary.AppendUvarint(dst, flags)
		dst = binary.AppendUvarint(dst, e.version-last)
		dst = binary.AppendUvarint(dst, e.version-e.from)
		dst = appendBytes(dst, e.key)
		if !e.deleted {
			dst = appendBytes(dst, e.value)
		}
		if e.ext != "" {
			dst = appendBytes(dst, e.ext)
		}
		last = e.version
	}
	return dst
}

// headerSize and entrySize are upper bounds of what a delta adds to its keys and values on the wire, for anything that really occurs.
func headerSize(node string) int { return 40 + len(node) }

func entrySize(it *item) int { return 20 + it.size() }

// parser reads the pieces of a message. After the first error it only returns zero values.
type parser struct {
	b   []byte
	err error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
}

func (p *parser) uvarint(what string) uint64 {
	if p.err != nil {
		return 0
	}
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.fail("cannot read %s", what)
		return 0
	}
	p.b = p.b[n:]
	return v
}

// bytes returns a piece of the input, which is not copied. A limit of -1 means as much as there is.
func (p *parser) bytes(what string, limit int) []byte {
	n := p.uvarint("length of " + what)
	switch {
	case p.err != nil:
		return nil
	case limit >= 0 && n > uint64(limit):
		p.err = fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrLimit, what, n, limit)
		return nil
	case n > uint64(len(p.b)):
		p.fail("%s is cut off", what)
		return nil
	}
	b := p.b[:n:n]
	p.b = p.b[n:]
	return b
}

func (p *parser) version() {
	switch {
	case p.err != nil:
	case len(p.b) == 0:
		p.fail("it is empty")
	case p.b[0] != formatVersion:
		p.err = fmt.Errorf("%w: %d, this software knows %d", ErrVersion, p.b[0], formatVersion)
	default:
		p.b = p.b[1:]
	}
}

func (p *parser) flags(what string, known uint64) uint64 {
	f := p.uvarint(what)
	if f&^known != 0 && p.err == nil {
		p.err = fmt.Errorf("%w: %s %#x", ErrVersion, what, f)
	}
	return f
}

// minEntry is the size of the smallest entry: five numbers of one byte and no key would be four; a key has at least one.
const minEntry = 5

// parseDelta decodes and checks a message. What it returns does not share memory with the input: the values of one
// message share one buffer of their own, which costs one allocation, and keeps a message in memory as long as one of its values.
func parseDelta(wire []byte, limits *Limits) (*delta, error) {
	p := &parser{b: wire}
	p.version()
	d := &delta{}
	flags := p.flags("header flags", headerWhole|headerExt|headerTail)
	d.node = string(p.bytes("node", maxName))
	d.generation = p.uvarint("generation")
	d.floor = p.uvarint("floor")
	d.whole = flags&headerWhole != 0
	if d.whole {
		d.to = p.uvarint("version")
	}
	if flags&headerTail != 0 {
		d.tail.to = p.uvarint("tail")
		d.tail.from = d.tail.to - p.uvarint("covered versions")
		if d.tail.from >= d.tail.to || d.tail.to > math.MaxInt64 {
			p.fail("a tail that covers nothing")
		}
	}
	if flags&headerExt != 0 {
		d.age = parseAge(p.bytes("header extension", -1))
	}
	count := p.uvarint("number of entries")
	switch {
	case p.err != nil:
		return nil, p.err
	case d.node == "":
		p.fail("it names no node")
	case d.generation == 0 || d.generation > MaxGeneration:
		p.fail("generation %d", d.generation)
	case count > uint64(limits.Keys):
		return nil, fmt.Errorf("%w: %d entries, at most %d are allowed", ErrLimit, count, limits.Keys)
	case count > uint64(len(p.b)/minEntry):
		p.fail("%d entries in %d bytes", count, len(p.b))
	}
	if p.err != nil {
		return nil, p.err
	}
	d.entries = make([]entry, 0, count)
	items := make([]item, count)
	last := uint64(0)
	for i := range items {
		if !p.entry(&items[i], &last, d, limits) {
			return nil, p.err
		}
	}
	switch {
	case len(p.b) > 0:
		p.fail("%d bytes too many", len(p.b))
	case d.whole && d.to > math.MaxInt64:
		p.fail("version beyond all bounds")
	case d.tail.to > 0 && (d.whole || d.tail.from < last):
		p.fail("a tail that is not at the end")
	case d.whole && last > d.to:
		p.fail("entry of version %d in a record of version %d", last, d.to)
	case d.whole && d.floor > d.to:
		p.fail("floor %d above version %d", d.floor, d.to)
	}
	if p.err != nil {
		return nil, p.err
	}
	return d, nil
}

// Subject returns the node that a delta or a whole record is about, for whoever takes it from that node alone. It reads no further:
// the rest may still be wrong. The error wraps ErrFormat, ErrVersion or ErrLimit.
func Subject(wire []byte) (string, error) {
	p := &parser{b: wire}
	p.version()
	p.flags("header flags", headerWhole|headerExt|headerTail)
	node := p.bytes("node", maxName)
	if len(node) == 0 {
		p.fail("it names no node")
	}
	if p.err != nil {
		return "", fmt.Errorf("cannot read whom a delta of %d bytes is about: %w", len(wire), p.err)
	}
	return string(node), nil
}

// entry reads one entry into it and adds it to d.
func (p *parser) entry(it *item, last *uint64, d *delta, limits *Limits) bool {
	flags := p.flags("entry flags", entryDeleted|entryExt)
	step := p.uvarint("version step")
	covers := p.uvarint("covered versions")
	it.key = string(p.bytes("key", limits.KeySize))
	it.deleted = flags&entryDeleted != 0
	if !it.deleted {
		if v := p.bytes("value", limits.ValueSize); p.err == nil {
			it.value = append(make([]byte, 0, len(v)), v...)
		}
	}
	if flags&entryExt != 0 {
		it.ext = string(p.bytes("entry extension", limits.ValueSize))
	}
	switch {
	case p.err != nil:
	case step == 0 || step > math.MaxInt64-*last:
		p.fail("versions are not in order")
	case covers == 0 || covers > step:
		p.fail("an entry covers %d versions of %d", covers, step)
	case it.key == "":
		p.fail("an entry has no key")
	}
	if p.err != nil {
		return false
	}
	*last += step
	it.version = *last
	d.entries = append(d.entries, entry{item: it, from: *last - covers})
	return true
}

func (d *delta) sort() {
	slices.SortFunc(d.entries, func(a, b entry) int { return cmp.Compare(a.version, b.version) })
	d.entries = slices.CompactFunc(d.entries, func(a, b entry) bool { return a.item == b.item })
	// What lies between two entries of one message need be covered only once, and the decoder insists on it.
	for i := 1; i < len(d.entries); i++ {
		d.entries[i].from = max(d.entries[i].from, d.entries[i-1].version)
	}
}
