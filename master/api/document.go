package api

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/master"
	"starling/master/mesos/server"
)

// An answer that shows everything may have a hundred megabytes. It is made of parts: what shows a page of tasks, or a run of
// agents, is encoded, and packed, once for as long as that does not change, and shared by all answers that are made, or
// still on their way to slow readers, meanwhile.

// part is a piece of a document. It is not modified once it is in one, but for packed.
type part struct {
	plain  []byte
	of     []*master.AgentView // for a run of agents
	packed []byte              // a piece of a deflate stream; guarded by cached.packing
}

// parts keeps the parts of an endpoint's newest document, by what they show.
type parts map[any]*part

// document is an encoded answer.
type document struct {
	parts []*part
	size  int // in bytes

	packing *sync.Mutex
	packed  [][]byte // guarded by packing
}

// small is the size in bytes up to which an answer is sent as one piece.
const small = 64 << 10

// send answers with the document.
func (d *document) send(c *fiber.Ctx) error {
	plain := make([][]byte, len(d.parts))
	for i, p := range d.parts {
		plain[i] = p.plain
	}
	if d.size <= small || c.Query("jsonp") != "" {
		return server.WriteJSON(c, slices.Concat(plain...))
	}
	return server.WriteSegments(c, plain, d.pack)
}

// pack returns the document as one gzip stream (RFC 1952). Each part is packed by itself, up to a boundary of bytes, so that
// it can stand in another stream as well.
func (d *document) pack() ([][]byte, error) {
	d.packing.Lock()
	defer d.packing.Unlock()
	if d.packed != nil {
		return d.packed, nil
	}
	var z *flate.Writer
	var buf bytes.Buffer
	sum := uint32(0)
	out := make([][]byte, 0, len(d.parts)+2)
	out = append(out, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255})
	for _, p := range d.parts {
		sum = crc32.Update(sum, crc32.IEEETable, p.plain)
		if p.packed == nil {
			buf.Reset()
			if z == nil {
				var err error
				if z, err = flate.NewWriter(&buf, flate.BestSpeed); err != nil {
					return nil, fmt.Errorf("cannot pack an answer: %w", err)
				}
			} else {
				z.Reset(&buf)
			}
			if _, err := z.Write(p.plain); err != nil {
				return nil, fmt.Errorf("cannot pack an answer: %w", err)
			}
			if err := z.Flush(); err != nil {
				return nil, fmt.Errorf("cannot pack an answer: %w", err)
			}
			p.packed = bytes.Clone(buf.Bytes())
		}
		out = append(out, p.packed)
	}
	end := []byte{3, 0} // an empty last block
	end = binary.LittleEndian.AppendUint32(end, sum)
	d.packed = append(out, binary.LittleEndian.AppendUint32(end, uint32(d.size)))
	return d.packed, nil
}

// cache keeps the newest encoding of each endpoint, so that many readers cost one encoding a version.
type cache struct {
	mu      sync.Mutex
	entries map[string]*cached
}

// idle is how long an encoding is kept that nobody asks for.
const idle = 30 * time.Second

type cached struct {
	mu      sync.Mutex // held while encoding: the others wait and share
	version uint64
	doc     *document // nil where nothing is kept
	parts   parts
	forget  *time.Timer

	packing sync.Mutex
}

// get returns the document of a version, made if need be; hit tells that it was there. The document is shared and must not
// be modified.
func (c *cache) get(path string, version uint64, encode func(*jsonWriter)) (doc *document, hit bool, err error) {
	c.mu.Lock()
	if c.entries == nil {
		c.entries = make(map[string]*cached)
	}
	e := c.entries[path]
	if e == nil {
		e = &cached{}
		e.forget = time.AfterFunc(idle, e.clear)
		c.entries[path] = e
	}
	c.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget.Reset(idle)
	if e.doc != nil && e.version >= version {
		return e.doc, true, nil
	}
	w := newJSON()
	w.kept, w.used = e.parts, make(parts, len(e.parts))
	if doc, err = w.document(encode); err != nil {
		return nil, false, err
	}
	doc.packing = &e.packing
	e.version, e.doc, e.parts = version, doc, w.used
	return doc, false, nil
}

func (e *cached) clear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doc, e.parts = nil, nil
}
