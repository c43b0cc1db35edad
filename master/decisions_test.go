package master_test

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/maintenance"
	"starling/master/mesos/quota"
)

// decide is what operators do in a sequence. What is refused is refused with a reason, and changes nothing.
func (s *sequence) decide() string {
	ctx := s.t.Context()
	a := one(s, s.agents)
	role := one(s, []string{"web", "batch"})
	refusable := func(err error) {
		if _, ok := errors.AsType[*master.Refusal](err); err != nil && !ok {
			s.t.Errorf("an operator is refused with %v", err)
		}
	}
	switch s.rng.IntN(8) {
	case 0:
		s.disturbed[a.ID] = true
		grace := time.Duration(s.rng.IntN(5)) * time.Second
		refusable(s.c.Master.DrainAgent(ctx, a.ID, &grace, false))
		return "drain " + a.ID
	case 1:
		refusable(s.c.Master.DeactivateAgent(ctx, a.ID))
		return "deactivate " + a.ID
	case 2, 3:
		for _, a := range s.agents {
			refusable(s.c.Master.ReactivateAgent(ctx, a.ID))
		}
		return "reactivate all"
	case 4:
		weight := &mesos.WeightInfo{Role: &role, Weight: proto.Float64(1 + 4*s.rng.Float64())}
		refusable(s.c.Master.UpdateWeights(ctx, []*mesos.WeightInfo{weight}))
		return fmt.Sprint("weight of ", role, " is ", weight.GetWeight())
	case 5:
		scalars := func(most int) map[string]*mesos.Value_Scalar {
			if s.chance(3) {
				return nil
			}
			return map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(float64(s.rng.IntN(most)))}}
		}
		config := &quota.QuotaConfig{Role: &role, Guarantees: scalars(4), Limits: scalars(12)}
		refusable(s.c.Master.UpdateQuota(ctx, []*quota.QuotaConfig{config}, s.chance(2)))
		return fmt.Sprint("quota of ", config)
	case 6:
		var ips []string
		for _, a := range s.agents {
			if s.chance(3) {
				ips = append(ips, a.Host())
			}
		}
		schedule := &maintenance.Schedule{}
		if len(ips) > 0 {
			schedule = window(ips...)
		}
		refusable(s.c.Master.UpdateMaintenance(ctx, schedule))
		return fmt.Sprint("maintenance of ", ips)
	default:
		op := mastertest.Reserve("", role, "", "cpus:1;mem:64")
		if s.chance(2) {
			op = mastertest.Unreserve("", role, "", "cpus:1;mem:64")
		}
		if !s.yielding(a) {
			return "nothing"
		}
		refusable(s.c.Master.Operate(ctx, a.ID, op, ""))
		return fmt.Sprint(op.GetType(), " on ", a.ID)
	}
}

// yielding agents are those whose resources are turned into others: what is launched there may find that they have not been.
func (s *sequence) yielding(a *mastertest.Agent) bool {
	if a.ID < s.agents[2].ID {
		return false
	}
	s.disturbed[a.ID] = true
	return true
}

// undecide ends what operators decided.
func (s *sequence) undecide() {
	ctx := s.t.Context()
	s.must(s.c.Master.UpdateMaintenance(ctx, &maintenance.Schedule{}))
	s.must(s.c.Master.UpdateQuota(ctx, []*quota.QuotaConfig{{Role: proto.String("web")}, {Role: proto.String("batch")}}, true))
	for _, a := range s.agents {
		_ = s.c.Master.ReactivateAgent(ctx, a.ID) // which may be active, or in use yet
	}
}
