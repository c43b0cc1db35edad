package app

import (
	"cmp"
	"fmt"
	"iter"
	"strings"
)

// PathID is the absolute id of an app or group: "/shop/web", or Root. The zero value is no id. Make one with ParseID,
// Child or Parent, so that it is always in its one canonical form and can be compared and used as a key.
type PathID string

// Root is the id of the group that holds everything.
const Root PathID = "/"

// maxIDLength bounds an id in characters. An id becomes part of task ids, names and keys of the store, which have to hold it beside
// an instance's and an agent's, and the work to walk to a group grows with its depth.
const maxIDLength = 800

// ParseID reads an id as users write it. A relative one ("b/c", "./b", "../x") is resolved against base, repeated and
// trailing slashes count once, and ".." above the root stays at the root. The empty string is base itself. The error says
// which segment breaks which rule.
func ParseID(s string, base PathID) (PathID, error) {
	var segments []string
	if !strings.HasPrefix(s, "/") {
		segments = base.Segments()
	}
	for segment := range strings.SplitSeq(s, "/") {
		switch segment {
		case "", ".":
		case "..":
			if len(segments) > 0 {
				segments = segments[:len(segments)-1]
			}
		default:
			if !validSegment(segment) {
				return "", fmt.Errorf("%q is not a valid id: segment %q must be lower case letters, digits, and dashes or dots between them", s, segment)
			}
			segments = append(segments, segment)
		}
	}
	id := Root.join(segments)
	if len(id) > maxIDLength {
		return "", fmt.Errorf("an id of %d characters is too long: the limit is %d", len(id), maxIDLength)
	}
	return id, nil
}

// validSegment tells whether s is one or more labels joined by dots, where a label has lower case letters, digits and, not
// at its ends, dashes.
func validSegment(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

func (p PathID) join(segments []string) PathID {
	if len(segments) == 0 {
		return p
	}
	prefix := string(p)
	if p == Root || p == "" {
		prefix = ""
	}
	return PathID(prefix + "/" + strings.Join(segments, "/"))
}

// Segments returns the parts between the slashes, none for the root. The slice is the caller's.
func (p PathID) Segments() []string {
	trimmed := strings.Trim(string(p), "/")
	if trimmed == "" {
		return nil
	}
	return strings.Split(trimmed, "/")
}

// Parent returns the id of the group that holds p; the root is its own parent.
func (p PathID) Parent() PathID {
	if i := strings.LastIndexByte(string(p), '/'); i > 0 {
		return p[:i]
	}
	return Root
}

// Base returns the last segment, empty for the root.
func (p PathID) Base() string {
	return string(p[strings.LastIndexByte(string(p), '/')+1:])
}

// Top returns the first segment, empty for the root.
func (p PathID) Top() string {
	top, _, _ := strings.Cut(strings.TrimPrefix(string(p), "/"), "/")
	return top
}

// Depth is the number of segments, 0 for the root.
func (p PathID) Depth() int {
	if p == Root || p == "" {
		return 0
	}
	return strings.Count(string(p), "/")
}

// lineage yields the ids on the way from the root, which is left out, to p, which is not.
func (p PathID) lineage() iter.Seq[PathID] {
	return func(yield func(PathID) bool) {
		for i := 1; i < len(p); i++ {
			if p[i] == '/' && !yield(p[:i]) {
				return
			}
		}
		if len(p) > 1 {
			yield(p)
		}
	}
}

// Child returns the id one segment below p. The segment must be valid.
func (p PathID) Child(segment string) PathID { return p.join([]string{segment}) }

// Within tells whether p is group or lies anywhere below it.
func (p PathID) Within(group PathID) bool {
	if group == Root || p == group {
		return true
	}
	return len(p) > len(group) && p[len(group)] == '/' && p[:len(group)] == group
}

// Safe is the form that stands in Mesos ids: "shop_web" for "/shop/web". No id holds an underscore, so ParseSafe undoes it.
func (p PathID) Safe() string {
	return strings.ReplaceAll(strings.TrimPrefix(string(p), "/"), "/", "_")
}

// ParseSafe is the inverse of Safe.
func ParseSafe(s string) (PathID, error) {
	if s == "" {
		return "", fmt.Errorf("an empty text is not the safe form of an id")
	}
	id, err := ParseID("/"+strings.ReplaceAll(s, "_", "/"), Root)
	if err != nil {
		return "", err
	}
	if id.Safe() != s {
		return "", fmt.Errorf("%q is not the safe form of an id", s)
	}
	return id, nil
}

// HostName is the form that names tasks and their DiscoveryInfo: "web.shop" for "/shop/web".
func (p PathID) HostName() string {
	segments := p.Segments()
	for i, j := 0, len(segments)-1; i < j; i, j = i+1, j-1 {
		segments[i], segments[j] = segments[j], segments[i]
	}
	return strings.Join(segments, ".")
}

// Compare orders ids segment by segment, so that a group stands before its members, and they before what comes after it.
func (p PathID) Compare(o PathID) int {
	for i := range min(len(p), len(o)) {
		if p[i] == o[i] {
			continue
		}
		if p[i] == '/' || o[i] != '/' && p[i] < o[i] {
			return -1
		}
		return 1
	}
	return cmp.Compare(len(p), len(o))
}

// String returns the id as it is.
func (p PathID) String() string { return string(p) }
