package master

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/store"
	"starling/master/validation"
)

// stamps is more than the id and the times of a framework add to its document, in bytes.
const stamps = 1 << 10

// checkFramework finds what is wrong with a framework's description, in the words of the protocol.
func (m *Master) checkFramework(info *mesos.FrameworkInfo, suppressed []string, constraints *scheduler.OfferConstraints) error {
	if err := validation.Framework(info); err != nil {
		return err
	}
	if id := info.GetId().GetValue(); id != "" && store.CheckKey(prefixFramers+id) != nil {
		return fmt.Errorf("'%s' contains invalid characters", id) // more than in other ids, as a document is named after it
	}
	if foreign := slices.DeleteFunc(validation.Roles(info), m.cfg.whitelisted); len(foreign) > 0 {
		return fmt.Errorf("Roles %s are not present in the master's --roles", braces(foreign))
	}
	if info.GetUser() == "root" && !m.cfg.RootSubmissions {
		return errors.New("User 'root' is not allowed to run frameworks without --root_submissions set")
	}
	kept := newFramework(info.GetId().GetValue(), info)
	for _, role := range kept.roles {
		kept.suppressed[role] = true // as may be later
	}
	if doc, err := kept.encode(); err != nil || len(doc.data)+stamps > store.MaxSize {
		return fmt.Errorf("FrameworkInfo of %d bytes is larger than what can be kept", proto.Size(info))
	}
	if err := validation.Suppressed(info, suppressed); err != nil {
		return err
	}
	_, err := allocator.CompileConstraints(constraints, validation.Roles(info))
	return err
}

// context is what validation has to know of where a task would run.
func (m *Master) context(f *framework, a *agent, pool resources.Resources) validation.Context {
	return validation.Context{
		Framework: f.info,
		AgentID:   a.id,
		Pool:      pool,
		Active: func(id string) bool {
			t := m.tasks[taskKey{f.id, id}]
			return t != nil && !t.gone()
		},
		Unreachable: func(id string) bool {
			t := m.tasks[taskKey{f.id, id}]
			return t != nil && !t.unreachable.IsZero()
		},
		Executor: func(id string) *mesos.ExecutorInfo {
			if e := a.executors[executorKey{f.id, id}]; e != nil {
				return e.info
			}
			return nil
		},
	}
}
