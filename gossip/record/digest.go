package record

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Digest says how much of one node's record somebody holds.
type Digest struct {
	Node       string
	Generation uint64
	// Version is the contiguous version.
	Version uint64
	Floor   uint64
}

// Buckets is the number of buckets of a Summary.
const Buckets = 64

// Summary is a digest of all digests: each node's is hashed into one of the buckets. Two maps with equal summaries hold
// the same; where a bucket differs, the digests of its nodes have to be compared.
type Summary [Buckets]uint64

// The parameters of FNV-1a. A hash of our own kind, as the summary goes over the wire: it has to stay the same for ever.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// Bucket returns the bucket of a node's name.
func Bucket(node string) int {
	h := uint64(fnvOffset)
	for i := range len(node) {
		h = (h ^ uint64(node[i])) * fnvPrime
	}
	return int(mix(h) % Buckets)
}

func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// hash is 0 for a node of which nothing but the name is known: not everybody has heard of it.
func (d Digest) hash() uint64 {
	if d.Generation == 0 {
		return 0
	}
	h := uint64(fnvOffset)
	for i := range len(d.Node) {
		h = (h ^ uint64(d.Node[i])) * fnvPrime
	}
	for _, v := range [...]uint64{d.Generation, d.Version, d.Floor} {
		h = mix(h^v) * fnvPrime
	}
	return mix(h)
}

// minDigest is the size of the smallest digest.
const minDigest = 5

// AppendDigests appends the wire form of digests: a version byte, their number, and for each the name, the generation,
// the version, and by how much the floor is below it.
func AppendDigests(dst []byte, ds []Digest) []byte {
	dst = binary.AppendUvarint(append(dst, formatVersion), uint64(len(ds)))
	for _, d := range ds {
		dst = d.appendWire(dst)
	}
	return dst
}

func (d Digest) appendWire(dst []byte) []byte {
	dst = appendBytes(dst, d.Node)
	dst = binary.AppendUvarint(dst, d.Generation)
	dst = binary.AppendUvarint(dst, d.Version)
	return binary.AppendUvarint(dst, d.Version-min(d.Floor, d.Version))
}

// WireSize is how many bytes the digest takes at most in the form of AppendDigests.
func (d Digest) WireSize() int { return 2 + len(d.Node) + 3*binary.MaxVarintLen64 }

// ParseDigests decodes what AppendDigests made.
func ParseDigests(wire []byte) ([]Digest, error) {
	p := &parser{b: wire}
	p.version()
	n := p.uvarint("number of digests")
	switch {
	case p.err != nil:
	case n > uint64(len(p.b)/minDigest):
		p.fail("%d digests in %d bytes", n, len(p.b))
	case n > uint64(DefaultLimits().Nodes):
		p.err = fmt.Errorf("%w: %d digests", ErrLimit, n)
	}
	if p.err != nil {
		return nil, p.err
	}
	ds := make([]Digest, 0, n)
	for range n {
		d := Digest{Node: string(p.bytes("node", maxName))}
		d.Generation = p.uvarint("generation")
		d.Version = p.uvarint("version")
		below := p.uvarint("floor")
		switch {
		case p.err != nil:
		case d.Node == "":
			p.fail("a digest names no node")
		case d.Generation > MaxGeneration || d.Version > math.MaxInt64:
			p.fail("a digest beyond all bounds")
		case below > d.Version:
			p.fail("floor below zero")
		}
		if p.err != nil {
			return nil, p.err
		}
		d.Floor = d.Version - below
		ds = append(ds, d)
	}
	if len(p.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", ErrFormat, len(p.b))
	}
	return ds, nil
}
