package records

import (
	"crypto/sha1"
	"encoding/base32"
	"errors"
	"strings"
)

// zBase32 is the alphabet of z-base-32 (O'Whielacronx, 2009), whose digits Mesos-DNS uses for the hash in canonical names.
var zBase32 = base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding)

const (
	maxLabel = 63
	// maxLabel952 is the limit of Mesos-DNS where it enforces RFC 952.
	maxLabel952 = 24
	maxName     = 255 // octets on the wire, the root included (RFC 1035, 2.3.4)
)

// Sanitize makes a host name label (RFC 1123) of any text: letters become lower case, "-", "." and "_" become "-", all
// else is dropped; the result is cut at 63 characters and neither begins nor ends with "-". It may be empty.
func Sanitize(s string) string { return rules(false).label(s) }

// rules tells which labels are allowed: those of RFC 1123, or, where it is true, those of RFC 952: 24 characters, and no
// digit in front.
type rules bool

func (r rules) label(s string) string {
	limit, front := maxLabel, "-"
	if r {
		limit, front = maxLabel952, "-0123456789"
	}
	b := make([]byte, 0, maxLabel+1)
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		case c == '-', c == '.', c == '_':
			b = append(b, '-')
		}
	}
	label := strings.TrimLeft(string(b), front)
	if len(label) <= limit {
		return strings.TrimRight(label, "-")
	}
	// A cut that leaves dashes at the end takes as many of the characters behind them instead.
	head, rest := strings.TrimRight(label[:limit], "-"), strings.TrimLeft(label[limit:], "-")
	return strings.TrimRight(head+rest[:min(limit-len(head), len(rest))], "-")
}

// dotted sanitises each part between dots; empty parts are dropped. Framework names keep their dots.
func (r rules) dotted(s string) string {
	var parts []string
	for part := range strings.SplitSeq(s, ".") {
		if p := r.label(part); p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ".")
}

// hash is the part of a canonical name that tells tasks of one name apart.
func hash(taskID string) string {
	sum := sha1.Sum([]byte(taskID))
	return zBase32.EncodeToString(sum[:5])[:5]
}

// agentSuffix is the last part of an agent's id: "s12" of "0a6d1c1e-S12".
func agentSuffix(agentID string) string {
	return Sanitize(agentID[strings.LastIndexByte(agentID, '-')+1:])
}

// errName is returned for what cannot be a domain name.
var errName = errors.New("not a domain name")

// wire makes the wire form of a dotted name, lower-cased, without the root label at its end. It is a key of a Zone.
func wire(name string) (string, error) {
	b, ok := appendWire(make([]byte, 0, len(name)+1), name)
	if !ok {
		return "", errName
	}
	return string(b), nil
}

// appendWire appends the wire form of a dotted name, which may be in several parts, as wire makes it. What is not ASCII has
// no case in DNS (RFC 4343, 3).
func appendWire(b []byte, parts ...string) ([]byte, bool) {
	from := len(b)
	b = append(b, 0)
	label := from // where the length of the last label is
	for _, part := range parts {
		for i := range len(part) {
			c := part[i]
			switch {
			case c == '.':
				if n := len(b) - label - 1; n == 0 || n > maxLabel {
					return b[:from], false
				}
				b[label] = byte(len(b) - label - 1)
				label = len(b)
				c = 0
			case 'A' <= c && c <= 'Z':
				c += 'a' - 'A'
			}
			b = append(b, c)
		}
	}
	switch n := len(b) - label - 1; {
	case n == 0 && label > from:
		b = b[:label] // the final dot
	case n == 0 || n > maxLabel:
		return b[:from], false
	default:
		b[label] = byte(n)
	}
	if len(b)-from+1 > maxName {
		return b[:from], false
	}
	return b, true
}

// Lower makes the letters of ASCII lower case: no others have a case in DNS (RFC 4343, 3).
func Lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// dotted is the opposite of wire, with a final dot.
func dotted[K string | []byte](key K) string {
	b := make([]byte, 0, len(key))
	for len(key) > 0 {
		n := int(key[0])
		b = append(append(b, key[1:1+n]...), '.')
		key = key[1+n:]
	}
	return string(b)
}

// parent drops the first label of a key.
func parent[K string | []byte](key K) K { return key[1+int(key[0]):] }

const (
	firstLabel = iota
	lastLabel
)

// shorten cuts the first or the last label of a dotted name so that it can grow by n.
func shorten(name string, which, n int) string {
	from, to := 0, len(name)
	if which == firstLabel {
		if i := strings.IndexByte(name, '.'); i >= 0 {
			to = i
		}
	} else {
		from = strings.LastIndexByte(name, '.') + 1
	}
	if to-from+n <= maxLabel {
		return name
	}
	return name[:from] + strings.TrimRight(name[from:from+max(maxLabel-n, 0)], "-") + name[to:]
}
