package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/gossip"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos/codec"
)

// Node is the whole record of one node.
type Node struct {
	Member
	// Keys are in order; deleted ones are left out.
	Keys []Key `json:"keys"`
}

// Key is one key of a record.
type Key struct {
	Key string `json:"key"`
	// Version is that of the record when the key was written.
	Version uint64 `json:"version"`
	// Size is that of the value in bytes.
	Size int `json:"size"`
	// Summary is the value in a few words, for people.
	Summary string `json:"summary,omitempty"`
	// Value is the message that package catalog has for the key. Other values are Bytes, in base64, unless they are
	// large; Problem says what is wrong with a value that should be a message and is none.
	Value   json.RawMessage `json:"value,omitempty"`
	Bytes   []byte          `json:"bytes,omitempty"`
	Problem string          `json:"problem,omitempty"`
}

// maxBytes is the size up to which values that nobody understands are shown.
const maxBytes = 1024

func (a *api) node(c *fiber.Ctx) error {
	asked, err := url.PathUnescape(c.Params("name"))
	if err != nil {
		return fiber.NewError(fiber.StatusBadRequest, "The name of the node is not encoded as it should be")
	}
	known, s, err := a.find(asked)
	if err != nil {
		return fiber.NewError(fiber.StatusNotFound, err.Error())
	}
	n := Node{Member: a.member(time.Now(), known, s), Keys: make([]Key, 0, s.Len())}
	for e := range s.Entries() {
		n.Keys = append(n.Keys, key(e))
	}
	return write(c, n)
}

// key decodes an entry.
func key(e record.Entry) Key {
	k := Key{Key: e.Key, Version: e.Version, Size: len(e.Value)}
	msg := messageOf(e.Key)
	if msg != nil {
		if proto.Unmarshal(e.Value, msg) == nil {
			if text, err := codec.JSON.Marshal(msg); err == nil {
				k.Value, k.Summary = text, summary(msg)
				return k
			}
		}
		k.Problem = "the value is not what belongs to this key"
	}
	if len(e.Value) <= maxBytes {
		k.Bytes = e.Value
	}
	return k
}

// messageOf returns an empty message of the type that belongs to a key, nil for keys that this software does not know.
func messageOf(key string) proto.Message {
	switch key {
	case catalog.KeyNode:
		return &catalog.Node{}
	case catalog.KeyResources:
		return &catalog.Resources{}
	case catalog.KeyHealth:
		return &catalog.Health{}
	case catalog.KeyLeader:
		return &catalog.Leader{}
	case catalog.KeyCoordinate:
		return &catalog.Coordinate{}
	case catalog.KeyKeys:
		return &catalog.Keys{}
	}
	if strings.HasPrefix(key, catalog.PrefixTask) {
		return &catalog.Task{}
	}
	return nil
}

// find returns the node that is meant by what somebody typed: a name, else the host name that one node alone has, else what
// one name alone begins with.
func (a *api) find(asked string) (*gossip.Member, *record.Snapshot, error) {
	members := a.mesh.Members()
	type candidate struct {
		member *gossip.Member
		host   string
		close  int // how many letters agree at the beginning
	}
	var byHost, byPrefix, near []candidate
	for i := range members {
		m := &members[i]
		s := a.mesh.Snapshot(m.Name)
		if s == nil {
			continue
		}
		if m.Name == asked {
			return m, s, nil
		}
		var n catalog.Node
		_ = decode(s, catalog.KeyNode, &n)
		c := candidate{m, n.GetHostname(), max(common(m.Name, asked), common(n.GetHostname(), asked))}
		if c.host == asked && asked != "" {
			byHost = append(byHost, c)
		}
		if strings.HasPrefix(m.Name, asked) {
			byPrefix = append(byPrefix, c)
		}
		if c.close > 0 {
			near = append(near, c)
		}
	}
	meant := byHost
	if len(meant) == 0 {
		meant = byPrefix
	}
	if len(meant) == 1 {
		if s := a.mesh.Snapshot(meant[0].member.Name); s != nil {
			return meant[0].member, s, nil
		}
	}
	text := fmt.Sprintf("no node %q is known here", asked)
	if len(meant) > 1 {
		near, text = meant, fmt.Sprintf("%q can be any of %d nodes", asked, len(meant))
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(b.close, a.close) })
	for i, c := range near[:min(len(near), maxNear)] {
		if text += ", "; i == 0 {
			text = strings.TrimSuffix(text, ", ") + "; the nearest are "
		}
		text += fmt.Sprintf("%q", c.member.Name)
		if c.host != "" {
			text += fmt.Sprintf(" (%q)", c.host)
		}
	}
	return nil, nil, errors.New(text)
}

// maxNear is how many names are offered for one that is not known.
const maxNear = 3

// common counts the bytes that two names begin with alike.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
