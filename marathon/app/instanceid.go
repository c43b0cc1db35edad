package app

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// InstanceID names one desired copy of an app. It is comparable, and can be a key. The zero value is none.
type InstanceID struct {
	App  PathID
	UUID uuid.UUID
	// link is what stood between the two in an id of an older release; empty means the form of today.
	link string
}

// instanceLink joins the safe id and the uuid in every id that we make.
const instanceLink = ".instance-"

// appContainer is the container name in the task ids of apps.
const appContainer = "_app"

// String returns "<safe id>.instance-<uuid>", or the older form that was parsed.
func (i InstanceID) String() string {
	link := i.link
	if link == "" {
		link = instanceLink
	}
	return i.App.Safe() + link + i.UUID.String()
}

// IsZero tells that there is no instance.
func (i InstanceID) IsZero() bool { return i == InstanceID{} }

// MarshalText returns String.
func (i InstanceID) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText is ParseInstanceID.
func (i *InstanceID) UnmarshalText(text []byte) error {
	parsed, err := ParseInstanceID(string(text))
	if err == nil {
		*i = parsed
	}
	return err
}

// Task returns the id of the task of the instance's n-th launch, counted from 1.
func (i InstanceID) Task(n int) TaskID {
	return TaskID{Instance: i, Container: appContainer, Incarnation: n, joint: "."}
}

// TaskID names one launch of an instance. It is comparable.
type TaskID struct {
	Instance InstanceID
	// Container is "_app" for apps, the container's name for pods, empty in ids of old releases that had none.
	Container string
	// Incarnation counts the launches of the instance from 1; 0 in ids of old releases that had none.
	Incarnation int
	// joint is the character before the container.
	joint string
}

// String returns "<instance id>._app.<n>", or the older form that was parsed.
func (t TaskID) String() string {
	s := t.Instance.String()
	if t.Container != "" {
		s += t.joint + t.Container
	}
	if t.Incarnation > 0 {
		s += "." + strconv.Itoa(t.Incarnation)
	}
	return s
}

// MarshalText returns String.
func (t TaskID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is ParseTaskID.
func (t *TaskID) UnmarshalText(text []byte) error {
	parsed, err := ParseTaskID(string(text))
	if err == nil {
		*t = parsed
	}
	return err
}

// Of returns the id of the task of another container in the same launch of a pod's instance.
func (t TaskID) Of(container string) TaskID {
	t.Container = container
	return t
}

// PodTask returns the id of the task of a container in the n-th launch of a pod's instance, counted from 1.
func (i InstanceID) PodTask(container string, n int) TaskID { return i.Task(n).Of(container) }

// GroupExecutorID is the id of the executor of one launch of a pod's instance. Each launch has one of its own: what is
// left of the executor before may still be on its way out on the same agent.
func (t TaskID) GroupExecutorID() string {
	id := "instance-" + t.Instance.App.Safe() + "." + t.Instance.UUID.String()
	if t.Incarnation > 1 {
		id += "." + strconv.Itoa(t.Incarnation)
	}
	return id
}

// taskIDForm knows every form that was ever in use:
//
//	<safe>.instance-<uuid>[._]<container>[.<n>]    <safe>.marathon-<uuid>[._]<container>[.<n>]
//	<safe>.<uuid>[.<n>]                            <safe>_<uuid>[.<n>]
//
// and the first two without a container, which name an instance.
var taskIDForm = regexp.MustCompile(`^([a-z0-9._-]+?)(\.instance-|\.marathon-|[._])` +
	`([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})` +
	`(?:([._])(_app|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?))??(?:\.([1-9][0-9]{0,8}))?$`)

// ParseTaskID reads a task id in any of the forms that are, or once were, in use. Its String is the text again.
func ParseTaskID(s string) (TaskID, error) {
	m := taskIDForm.FindStringSubmatch(s)
	if m == nil {
		return TaskID{}, fmt.Errorf("invalid task id %q: want <app>.instance-<uuid>._app.<n>", s)
	}
	id, err := ParseSafe(m[1])
	if err != nil {
		return TaskID{}, fmt.Errorf("invalid task id %q: %w", s, err)
	}
	parsed, err := uuid.Parse(m[3])
	if err != nil {
		return TaskID{}, fmt.Errorf("invalid task id %q: %w", s, err)
	}
	t := TaskID{Instance: InstanceID{App: id, UUID: parsed}, Container: m[5], joint: m[4]}
	if m[2] != instanceLink {
		t.Instance.link = m[2]
	}
	old := m[2] == "." || m[2] == "_"
	if old && t.Container != "" {
		return TaskID{}, fmt.Errorf("invalid task id %q: this form has no container", s)
	}
	if m[6] != "" {
		if t.Incarnation, err = strconv.Atoi(m[6]); err != nil {
			return TaskID{}, fmt.Errorf("invalid task id %q: %w", s, err)
		}
	}
	return t, nil
}

// ParseInstanceID reads an instance id, or the id of any of its tasks.
func ParseInstanceID(s string) (InstanceID, error) {
	t, err := ParseTaskID(s)
	if err != nil {
		return InstanceID{}, fmt.Errorf("invalid instance id %q: want <app>.instance-<uuid>", s)
	}
	return t.Instance, nil
}

// CustomExecutorID is the id of the executor of an app that brings its own.
func (t TaskID) CustomExecutorID() string { return "marathon-" + strings.TrimSpace(t.String()) }

// gregorian is the number of 100 ns steps from the beginning of version 1 uuids (1582) to 1970.
const gregorian = 0x01b21dd213814000

// UUIDs makes version 1 uuids out of times that it is handed. Each is later than the one before, whatever the clock does.
// It is not safe for concurrent use; the one who owns the state owns it.
type UUIDs struct {
	node  [6]byte
	clock uint16
	last  uint64
}

// NewUUIDs returns a source whose node and clock sequence are drawn from rng, so that two sources do not collide.
func NewUUIDs(rng *rand.Rand) *UUIDs {
	u := &UUIDs{clock: uint16(rng.Uint32() & 0x3fff)}
	for i := range u.node {
		u.node[i] = byte(rng.Uint32())
	}
	u.node[0] |= 1 // the multicast bit marks a node that is no hardware address (RFC 9562, 6.10)
	return u
}

// Made tells whether a uuid is one of this source's.
func (u *UUIDs) Made(id uuid.UUID) bool {
	return [6]byte(id[10:]) == u.node && uint16(id[8]&0x3f)<<8|uint16(id[9]) == u.clock
}

// Next returns a new uuid for now.
func (u *UUIDs) Next(now time.Time) uuid.UUID {
	tick := uint64(now.UnixNano()/100) + gregorian
	tick = max(tick, u.last+1)
	u.last = tick
	var id uuid.UUID
	id[0], id[1], id[2], id[3] = byte(tick>>24), byte(tick>>16), byte(tick>>8), byte(tick)
	id[4], id[5] = byte(tick>>40), byte(tick>>32)
	id[6], id[7] = byte(tick>>56)&0x0f|0x10, byte(tick>>48)
	id[8], id[9] = byte(u.clock>>8)|0x80, byte(u.clock)
	copy(id[10:], u.node[:])
	return id
}
