package master

import (
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/master/mesos"
)

// Of each task the master keeps what it needs all the time in fields, and the rest encoded: there may be a hundred thousand
// tasks, a decoded message takes about ten times the memory of an encoded one, and hardly any of them is ever looked at.

// entry is a task's entry in its agent's record, as it came: the bytes are those of the mesh's copy.
type entry []byte

// decode returns the entry. It was readable when it was taken.
func (e entry) decode() *catalog.Task {
	t := new(catalog.Task)
	_ = proto.Unmarshal(e, t)
	return t
}

// definition is what was said of a task when it was launched or described: an encoded mesos.Task without ids, state and
// statuses. nil where neither has been heard.
type definition []byte

func launched(info *mesos.TaskInfo) definition {
	t := &mesos.Task{
		Name: info.Name, Resources: endpointFormat(info.GetResources()), Labels: info.Labels, Discovery: info.Discovery,
		Container: info.Container, HealthCheck: info.HealthCheck, KillPolicy: info.KillPolicy, Limits: info.Limits,
	}
	switch {
	case info.GetCommand().GetUser() != "":
		t.User = info.Command.User
	case info.GetExecutor().GetCommand().GetUser() != "":
		t.User = info.Executor.Command.User
	}
	return encode(t)
}

func described(told *mesos.Task) definition {
	return encode(&mesos.Task{
		Name: told.Name, Resources: endpointFormat(told.GetResources()), Labels: told.Labels, Discovery: told.Discovery, User: told.User,
		Container: told.Container, HealthCheck: told.HealthCheck, KillPolicy: told.KillPolicy, Limits: told.Limits,
	})
}

// decode returns a message of the caller's own.
func (d definition) decode() *mesos.Task {
	t := new(mesos.Task)
	_ = decoding.Unmarshal(d, t)
	return t
}

// Required fields were looked for where the messages came in; parts of them, by themselves, lack some.
var (
	encoding = proto.MarshalOptions{AllowPartial: true}
	decoding = proto.UnmarshalOptions{AllowPartial: true}
)

// encode cannot fail on what was decoded before: only text that is no UTF-8 is refused.
func encode(m proto.Message) []byte {
	b, _ := encoding.Marshal(m)
	return b
}

// statuses has one entry for each run of equal states, oldest first, without data. It is never modified in place.
type statuses []keptStatus

type keptStatus struct {
	state   mesos.TaskState
	at      float64 // its timestamp
	encoded []byte  // mesos.TaskStatus
}

func (k keptStatus) decode() *mesos.TaskStatus {
	s := new(mesos.TaskStatus)
	_ = decoding.Unmarshal(k.encoded, s)
	return s
}

// with returns the list with another status, and whether its state differs from that of the one before.
func (l statuses) with(s *mesos.TaskStatus) (_ statuses, fresh bool) {
	if len(s.GetData()) > 0 {
		s = proto.CloneOf(s)
		s.Data = nil
	}
	kept := keptStatus{s.GetState(), s.GetTimestamp(), encode(s)}
	n := len(l)
	if n > 0 && l[n-1].state == kept.state {
		return append(l[:n-1:n-1], kept), false
	}
	return append(l[:n:n], kept), true
}

// newest is nil when there is none.
func (l statuses) newest() *mesos.TaskStatus {
	if len(l) == 0 {
		return nil
	}
	return l[len(l)-1].decode()
}

func (l statuses) decode() []*mesos.TaskStatus {
	out := make([]*mesos.TaskStatus, len(l))
	for i, k := range l {
		out[i] = k.decode()
	}
	return out
}

// forwarded is what is remembered of the last update that was sent to a framework.
type forwarded struct {
	state mesos.TaskState
	uuid  []byte
}

func forwardedAs(s *mesos.TaskStatus) *forwarded {
	return &forwarded{s.GetState(), s.GetUuid()}
}
