package zkelection

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"starling/master/election"
	"starling/master/mesos"
	"starling/master/mesos/codec"
)

// The children of the election's node, as Mesos names them: a label up to the first underscore, and a sequence number of ten
// digits behind the last. Ours are labelJSON; the others stem from very old masters, and count for the order all the same.
const (
	labelJSON   = "json.info" // MasterInfo as JSON
	labelBinary = "info"      // MasterInfo as protobuf
	labelPID    = ""          // a bare number: the master's pid as text
)

// member is one child that takes part in the election.
type member struct {
	name     string
	label    string
	sequence int64
}

// parseMember reads a child's name; other children, such as log_replicas, are none.
func parseMember(name string) (member, bool) {
	m := member{name: name}
	digits := name
	if i := strings.LastIndexByte(name, '_'); i >= 0 {
		digits = name[i+1:]
		m.label, _, _ = strings.Cut(name, "_")
		if m.label == labelPID {
			return m, false
		}
	}
	if m.label != labelJSON && m.label != labelBinary && m.label != labelPID {
		return m, false
	}
	if strings.HasPrefix(digits, "+") {
		return m, false
	}
	var err error
	m.sequence, err = strconv.ParseInt(digits, 10, 64)
	return m, err == nil
}

// members returns the children that take part, the leader first.
func members(children []string) []member {
	var out []member
	for _, name := range children {
		if m, ok := parseMember(name); ok {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.name, b.name))
	})
	return out
}

// encode returns what our own child holds.
func encode(c election.Candidate) ([]byte, error) {
	data, err := codec.JSON.Marshal(c.MasterInfo())
	if err != nil {
		return nil, fmt.Errorf("cannot encode this master's info: %w", err)
	}
	return data, nil
}

// decode reads what a child holds.
func decode(label string, data []byte) (election.Candidate, error) {
	var c election.Candidate
	info := new(mesos.MasterInfo)
	switch label {
	case labelPID:
		_, address, ok := strings.Cut(string(data), "@")
		host, port, err := net.SplitHostPort(address)
		if !ok || err != nil {
			return c, fmt.Errorf("pid %q is not name@address:port", data)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || net.ParseIP(host) == nil {
			return c, fmt.Errorf("pid %q is not name@address:port", data)
		}
		return election.Candidate{ID: string(data), Hostname: host, Address: host, Port: int(n)}, nil
	case labelBinary:
		if err := codec.Protobuf.Unmarshal(data, info); err != nil {
			return c, err
		}
	default:
		if err := codec.JSON.Unmarshal(data, info); err != nil {
			return c, err
		}
	}
	return election.FromMasterInfo(info)
}
