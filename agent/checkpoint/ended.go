package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
)

// EndedMax is how many ids of ended tasks are remembered.
const EndedMax = 1 << 16

// The file of ended tasks is a row of records of 20 bytes: the digest of an id, and its CRC-32C. Records are appended; a
// record that does not check is skipped; at twice EndedMax records the file is rewritten with the newer half.
const endedRecord = 20

// digest stands for a task id in the file.
type digest [16]byte

func digestOf(framework, task string) digest {
	h := sha256.New()
	h.Write([]byte(framework))
	h.Write([]byte{0})
	h.Write([]byte(task))
	return digest(h.Sum(nil)[:16])
}

func (d digest) appendTo(buf []byte) []byte {
	buf = append(buf, d[:]...)
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(d[:], castagnoli))
}

// parseEnded returns the records that check, oldest first, and whether there was anything else.
func parseEnded(data []byte) (all []digest, clean bool) {
	clean = len(data)%endedRecord == 0
	for ; len(data) >= endedRecord; data = data[endedRecord:] {
		d := digest(data[:16])
		if crc32.Checksum(d[:], castagnoli) != binary.BigEndian.Uint32(data[16:]) {
			clean = false
			continue
		}
		all = append(all, d)
	}
	return all, clean
}

// Ended is the set of tasks that ended: a bounded memory of which the oldest entries go first. It is not safe for
// concurrent use; the zero value is empty.
type Ended struct {
	set   map[digest]struct{}
	order []digest // a ring once it is full
	next  int
}

// Add remembers a task.
func (e *Ended) Add(framework, task string) { e.add(digestOf(framework, task)) }

// Has tells whether a task is remembered.
func (e *Ended) Has(framework, task string) bool {
	_, ok := e.set[digestOf(framework, task)]
	return ok
}

func (e *Ended) add(d digest) {
	if e.set == nil {
		e.set = map[digest]struct{}{}
	}
	if _, ok := e.set[d]; ok {
		return
	}
	e.set[d] = struct{}{}
	if len(e.order) < EndedMax {
		e.order = append(e.order, d)
		return
	}
	delete(e.set, e.order[e.next])
	e.order[e.next] = d
	e.next = (e.next + 1) % EndedMax
}
