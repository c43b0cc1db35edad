package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"starling/cmd/internal/flags"
	"starling/gossip/api"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
)

// Node is "starling node ...". It returns the exit code.
func Node(ctx context.Context, io Streams, args, environ []string) int {
	var d drain
	g := group{
		name: "node", about: "Looks at the nodes that run tasks, and takes them out of service.",
		commands: []command{
			{
				name: "ls", about: "List the nodes that run tasks: state, free resources of all, tasks.",
				example: "starling node ls -o json", run: nodeList,
			},
			{
				name: "drain", takes: "NODE", min: 1, max: 1, flags: d.register, run: d.run,
				about:   "End the tasks of a node, and give it no more until it is activated; NODE is its name, how that begins, or its host name.",
				example: "starling node drain edge1 --max-grace 30s --wait",
			},
			{
				name: "activate", takes: "NODE", min: 1, max: 1, run: activate,
				about:   "Give a node that was drained tasks again.",
				example: "starling node activate edge1",
			},
		},
	}
	return g.run(ctx, io, args, environ)
}

func nodeList(ctx context.Context, c *call) error {
	all, err := c.members(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(m api.Member) bool { return !slices.Contains(m.Roles, "agent") })
	slices.SortFunc(all, func(a, b api.Member) int { return strings.Compare(a.Name, b.Name) })
	if c.print.json {
		return c.print.value(all)
	}
	rows := make([][]string, 0, len(all))
	for i := range all {
		m := &all[i]
		row := []string{m.Name, m.Hostname, m.State, m.APIAddress, "", "", "", strconv.Itoa(m.Tasks), strings.Join(notes(m), ", ")}
		if f, t := m.Free, m.Total; f != nil && t != nil {
			row[4], row[5], row[6] = short(f.CPUs)+" of "+short(t.CPUs), megabytes(f.Mem)+" of "+megabytes(t.Mem), megabytes(f.Disk)+" of "+megabytes(t.Disk)
		}
		rows = append(rows, row)
	}
	return c.print.table([]string{"NAME", "HOST", "STATE", "ADDRESS", "CPUS FREE", "MEM FREE", "DISK FREE", "TASKS", "NOTES"}, rows)
}

// drain is "node drain".
type drain struct {
	grace          time.Duration
	markGone, wait bool
	patience       time.Duration
}

func (d *drain) register(s *flags.Set) {
	s.DurationVar(&d.grace, "max-grace", 0, "the longest that a task gets to end by itself, as a `duration` such as 30s; 0 leaves each its own")
	s.BoolVar(&d.markGone, "mark-gone", false, "take the node for gone for good once its tasks have ended: it does not come back under its id")
	s.BoolVar(&d.wait, "wait", false, "return once all tasks of the node have ended")
	s.DurationVar(&d.patience, "timeout", 0, "with --wait: fail after this `duration`; 0 waits without end")
}

func (d *drain) run(ctx context.Context, c *call) error {
	if d.grace < 0 {
		return usagef("--max-grace %v is negative", d.grace)
	}
	node, master, err := c.nodeAndLeader(ctx, c.args[0])
	if err != nil {
		return err
	}
	agent := &mesos.AgentID{Value: &node.AgentID}
	call := &operator.Call_DrainAgent{AgentId: agent, MarkGone: &d.markGone}
	if d.grace > 0 {
		call.MaxGracePeriod = durationpb.New(d.grace)
	}
	if err := master.call(ctx, &operator.Call{Type: operator.Call_DRAIN_AGENT.Enum(), DrainAgent: call}, nil); err != nil {
		return err
	}
	if !d.wait {
		return c.print.done(fmt.Sprintf("node %s is being drained", named(node)), node.AgentID)
	}
	if d.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.patience)
		defer cancel()
	}
	if err := d.drained(ctx, master, node); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("node %s still has tasks after %v; it goes on being drained", named(node), d.patience)
	} else if err != nil {
		return err
	}
	return c.print.done(fmt.Sprintf("node %s is drained", named(node)), node.AgentID)
}

// drainEvery is how often the master is asked how far a drain is.
const drainEvery = 500 * time.Millisecond

// drained waits until the master says so. One that is marked gone is not among its agents any more.
func (d *drain) drained(ctx context.Context, master *client, node *api.Member) error {
	look := time.NewTicker(drainEvery)
	defer look.Stop()
	for {
		var answer struct {
			Slaves []struct {
				Drain struct{ State string } `json:"drain_info"`
			}
		}
		if _, err := master.get(ctx, "/slaves?"+url.Values{"slave_id": {node.AgentID}}.Encode(), &answer); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			return err
		}
		if len(answer.Slaves) == 0 || answer.Slaves[0].Drain.State == "DRAINED" {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func activate(ctx context.Context, c *call) error {
	node, master, err := c.nodeAndLeader(ctx, c.args[0])
	if err != nil {
		return err
	}
	call := &operator.Call{
		Type: operator.Call_REACTIVATE_AGENT.Enum(), ReactivateAgent: &operator.Call_ReactivateAgent{AgentId: &mesos.AgentID{Value: &node.AgentID}},
	}
	if err := master.call(ctx, call, nil); err != nil {
		return err
	}
	return c.print.done(fmt.Sprintf("node %s is given tasks again", named(node)), node.AgentID)
}

// nodeAndLeader finds the node that a user means, and a client of the master that leads.
func (c *call) nodeAndLeader(ctx context.Context, asked string) (*api.Member, *client, error) {
	members, err := c.members(ctx)
	if err != nil {
		return nil, nil, err
	}
	node, err := pickNode(asked, members)
	if err != nil {
		return nil, nil, err
	}
	address, err := leader(members)
	if err != nil {
		return nil, nil, err
	}
	return node, c.client.at(address), nil
}

// pickNode returns the agent with a name, else the one with a host name, else the one whose name begins so.
func pickNode(asked string, members []api.Member) (*api.Member, error) {
	for _, means := range []func(*api.Member) bool{
		func(m *api.Member) bool { return m.Name == asked },
		func(m *api.Member) bool { return m.Hostname == asked },
		func(m *api.Member) bool { return strings.HasPrefix(m.Name, asked) },
	} {
		var found []*api.Member
		var names []string
		for i := range members {
			if m := &members[i]; m.AgentID != "" && means(m) {
				found, names = append(found, m), append(names, named(m))
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > candidatesMax:
			names = append(names[:candidatesMax], fmt.Sprintf("%d more", len(found)-candidatesMax))
			fallthrough
		case len(found) > 1:
			return nil, fmt.Errorf("%q may be any of: %s", asked, strings.Join(names, ", "))
		}
	}
	return nil, fmt.Errorf("no node that runs tasks is known as %q", asked)
}

// named is a node as people know it.
func named(m *api.Member) string {
	if m.Hostname == "" || m.Hostname == m.Name {
		return m.Name
	}
	return m.Name + " (" + m.Hostname + ")"
}
