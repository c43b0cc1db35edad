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
	maxName  = 255 // octets on the wire, the root included (RFC 1035, 2.3.4)
)

// Sanitize makes a host name label (RFC 1123) of any text: letters become lower case, "-", "." and "_" become "-", all
// else is dropped; the result is cut at 63 characters and neither begins nor ends with "-". It may be empty.
func Sanitize(s string) string {
	b := make([]byte, 0, len(s))
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
	label := strings.TrimLeft(string(b), "-")
	if len(label) <= maxLabel {
		return strings.TrimRight(label, "-")
	}
	// A cut that leaves dashes at the end takes as many of the characters behind them instead.
	head, rest := strings.TrimRight(label[:maxLabel], "-"), strings.TrimLeft(label[maxLabel:], "-")
	return strings.TrimRight(head+rest[:min(maxLabel-len(head), len(rest))], "-")
}

// sanitizeDotted sanitises each part between dots; empty parts are dropped. Framework names keep their dots.
func sanitizeDotted(s string) string {
	var parts []string
	for part := range strings.SplitSeq(s, ".") {
		if p := Sanitize(part); p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ".")
}

// hash is the part of a canonical name that tells tasks of one name apart.
func hash(taskID string) string {
	sum := sha1.Sum([]byte(taskID))
	return zBase32.EncodeToString(sum[:])[:5]
}

// agentSuffix is the last part of an agent's id: "s12" of "0a6d1c1e-S12".
func agentSuffix(agentID string) string {
	return Sanitize(agentID[strings.LastIndexByte(agentID, '-')+1:])
}

// errName is returned for what cannot be a domain name.
var errName = errors.New("not a domain name")

// wire makes the wire form of a dotted name, lower-cased, without the root label at its end. It is the key of a Zone.
func wire(name string) (string, error) {
	b := make([]byte, 0, len(name)+1)
	for label := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(name, ".")), ".") {
		if label == "" || len(label) > maxLabel {
			return "", errName
		}
		b = append(append(b, byte(len(label))), label...)
	}
	if len(b)+1 > maxName {
		return "", errName
	}
	return string(b), nil
}

// dotted is the opposite of wire, with a final dot.
func dotted(key string) string {
	var b strings.Builder
	for len(key) > 0 {
		n := int(key[0])
		b.WriteString(key[1 : 1+n])
		b.WriteByte('.')
		key = key[1+n:]
	}
	return b.String()
}

// parent drops the first label of a key.
func parent(key string) string { return key[1+int(key[0]):] }
