package master

import (
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
)

// Message is the agent as the operator API shows it.
func (a *AgentView) Message() *operator.Response_GetAgents_Agent {
	return &operator.Response_GetAgents_Agent{
		AgentInfo: a.Info, Active: proto.Bool(a.Active), Deactivated: proto.Bool(a.Deactivated),
		Version: proto.String(a.Version), Pid: proto.String(a.PID),
		RegisteredTime: timeInfo(a.Registered), ReregisteredTime: timeInfo(a.Reregistered),
		TotalResources: a.Total.ProtoEndpoint(), AllocatedResources: a.Used.ProtoEndpoint(),
		OfferedResources: a.Offered.ProtoEndpoint(), Capabilities: a.Capabilities,
		DrainInfo: a.Drain, EstimatedDrainStartTime: timeInfo(a.DrainStart),
	}
}

// Message is the framework as the operator API shows it.
func (f *FrameworkView) Message() *operator.Response_GetFrameworks_Framework {
	shown := &operator.Response_GetFrameworks_Framework{
		FrameworkInfo: f.Info, Active: proto.Bool(f.Active), Connected: proto.Bool(f.Connected),
		Recovered: proto.Bool(f.Recovered), RegisteredTime: timeInfo(f.Registered),
		ReregisteredTime: timeInfo(f.Reregistered), UnregisteredTime: timeInfo(f.Unregistered),
		InverseOffers: f.InverseOffers, AllocatedResources: f.Used.ProtoEndpoint(),
		OfferedResources: f.Offered.ProtoEndpoint(), OfferConstraints: f.Constraints,
	}
	for _, o := range f.Offers {
		shown.Offers = append(shown.Offers, o.Message)
	}
	return shown
}

// timeInfo is nil for the zero time.
func timeInfo(t time.Time) *mesos.TimeInfo {
	if t.IsZero() {
		return nil
	}
	return &mesos.TimeInfo{Nanoseconds: proto.Int64(t.UnixNano())}
}
