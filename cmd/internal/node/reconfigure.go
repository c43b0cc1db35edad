package node

import (
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"starling/agent/inventory"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// fileConfiguration is in the work directory of an agent: what it was when it ran last.
const fileConfiguration = "configuration"

// reconfigure looks at what has changed since this agent ran last, and refuses to go on where the policy does not allow
// that. Tasks that run are not touched either way.
func (r *role) reconfigure(a *agentFlags, id string, port int, found resources.Resources, attributes []*mesos.Attribute) error {
	if err := inventory.CheckPolicy(a.reconfiguration); err != nil {
		return &UsageError{fmt.Errorf("--reconfiguration-policy: %w", err)}
	}
	now := &mesos.AgentInfo{
		Id: &mesos.AgentID{Value: &id}, Hostname: &r.place.hostname, Port: proto.Int32(int32(port)), Resources: found.Proto(), Attributes: attributes,
	}
	if a.region != "" {
		now.Domain = &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
			Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: &a.region}, Zone: &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: &a.zone},
		}}
	}
	path := filepath.Join(r.place.dir, fileConfiguration)
	before, err := inventory.ReadInfo(path)
	if err != nil {
		r.log.Warn("whether this agent was configured anew is not known", "path", path, "err", err)
	}
	if before.GetId().GetValue() == id {
		changes, err := inventory.Reconfigure(a.reconfiguration, before, now)
		if err != nil {
			return err
		}
		for _, change := range changes {
			r.log.Info("configuration has changed since this agent ran last", "change", change)
		}
	}
	data, err := inventory.WriteInfo(now)
	if err == nil {
		err = writeDurably(path, data)
	}
	if err != nil {
		// The next start compares with an older state then, which harms nobody.
		r.log.Warn("cannot note how this agent is configured", "path", path, "err", err)
	}
	return nil
}

// gpus is what gives GPUs to containers; nil where nothing asks for that.
func (r *role) gpus(looked inventory.Config) *inventory.Allotter {
	machine := inventory.ThisMachine()
	found, err := machine.GPUs(looked)
	if err != nil || !looked.GPUs {
		return nil // an error was one of Detect before
	}
	out, err := inventory.NewAllotter(filepath.Join(r.place.dir, "gpus"), found, machine.GPUCommon())
	if err != nil {
		r.log.Error("who holds which GPU is not known: tasks that run may have to share theirs with new ones", "err", err)
	}
	return out
}
