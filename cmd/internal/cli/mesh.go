package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"starling/gossip/api"
)

// Mesh is "starling mesh ...". It returns the exit code.
func Mesh(ctx context.Context, io Streams, args, environ []string) int {
	var r rotation
	g := group{
		name: "mesh", about: "Looks into the mesh, as one of its nodes sees it.",
		commands: []command{
			{
				name: "members", about: "List the nodes: state, version, age, address, roles, free resources.",
				example: "starling mesh members --agent 10.0.0.1:5051 -o json", run: members,
			},
			{
				name: "get", takes: "NODE", min: 1, max: 1,
				about:   "Show all that a node says of itself; NODE is its name, how that begins, or its host name.",
				example: "starling mesh get 7e96229f", run: get,
			},
			{
				name: "rtt", takes: "A [B]", min: 1, max: 2,
				about:   "Print the round trip between two nodes, named as for get; with one, that from the node that is asked.",
				example: "starling mesh rtt edge1 edge2", run: rtt,
			},
			{
				name: "keys", about: "List which keys the nodes have, by fingerprint, and how far a rotation is.",
				example: "starling mesh keys", run: keys,
			},
			{
				name: "rotate-key", flags: r.register, run: r.run,
				about:   "Replace the cluster's key on all nodes, and follow that phase by phase. Run again, it finishes what was interrupted.",
				example: "(umask 077; starling keygen >new.key) && starling mesh rotate-key --cluster-key-file cluster.key --new-key-file new.key",
			},
			{
				name: "watch", about: "Print what changes, as it does, until Ctrl-C. With -o json, each change is a line of JSON.",
				example: "starling mesh watch -o json | grep task/", run: watch,
			},
		},
	}
	return g.run(ctx, io, args, environ)
}

func members(ctx context.Context, c *call) error {
	var list []api.Member
	body, err := c.client.get(ctx, api.PathMembers, &list)
	if err != nil {
		return err
	}
	if c.print.json {
		return c.print.raw(body)
	}
	slices.SortFunc(list, func(a, b api.Member) int { return strings.Compare(a.Name, b.Name) })
	rows := make([][]string, 0, len(list))
	for i := range list {
		rows = append(rows, row(&list[i]))
	}
	return c.print.table([]string{
		"NAME", "STATE", "ADDRESS", "VERSION", "AGE", "ROLES", "HOST", "CPUS", "MEM", "DISK", "PORTS", "TASKS", "NOTES",
	}, rows)
}

func row(m *api.Member) []string {
	cells := []string{
		m.Name, m.State, m.Address, strconv.FormatUint(m.Version, 10), ago(m.Age), strings.Join(m.Roles, ","), m.Hostname,
		"", "", "", "", strconv.Itoa(m.Tasks), strings.Join(notes(m), ", "),
	}
	if f := m.Free; f != nil {
		cells[7], cells[8], cells[9], cells[10] = short(f.CPUs), megabytes(f.Mem), megabytes(f.Disk), strconv.FormatUint(f.Ports, 10)
	}
	return cells
}

// notes are what is true of few nodes.
func notes(m *api.Member) []string {
	var n []string
	add := func(is bool, text string) {
		if is {
			n = append(n, text)
		}
	}
	add(m.Self, "asked")
	if m.Leader != nil {
		add(true, "leads, epoch "+strconv.FormatUint(m.Leader.Epoch, 10))
	}
	add(m.Draining, "draining")
	add(len(m.Problems) == 1, "1 problem")
	add(len(m.Problems) > 1, strconv.Itoa(len(m.Problems))+" problems")
	add(m.Damped, "comes and goes, damped until "+m.DampedUntil.UTC().Format(time.RFC3339))
	add(!m.Seen, "never seen from here")
	return n
}

func get(ctx context.Context, c *call) error {
	var n api.Node
	body, err := c.client.get(ctx, api.PathNodes+url.PathEscape(c.args[0]), &n)
	if err != nil {
		return err
	}
	if c.print.json {
		return c.print.raw(body)
	}
	if err := c.print.table([]string{"NAME", n.Name}, facts(&n)); err != nil {
		return err
	}
	rows := make([][]string, 0, len(n.Keys))
	for _, k := range n.Keys {
		says := cmp.Or(k.Problem, k.Summary)
		rows = append(rows, []string{k.Key, strconv.FormatUint(k.Version, 10), fmt.Sprintf("%d B", k.Size), says})
	}
	if err := c.print.text(""); err != nil {
		return err
	}
	return c.print.table([]string{"KEY", "VERSION", "SIZE", "SAYS"}, rows)
}

// facts are the lines about a node.
func facts(n *api.Node) [][]string {
	state := n.State
	if !n.Since.IsZero() {
		state += ", since " + n.Since.UTC().Format(time.RFC3339)
	}
	if more := strings.Join(notes(&n.Member), ", "); more != "" {
		state += ", " + more
	}
	lines := [][]string{
		{"STATE", state},
		{"MESH", n.Address},
		{"API", n.APIAddress},
		{"HOST", n.Hostname},
		{"ROLES", strings.Join(n.Roles, ",")},
		{"SOFTWARE", n.Software},
		{"RECORD", fmt.Sprintf("version %d, generation %d, newest change %s ago", n.Version, n.Generation, ago(n.Age))},
	}
	if n.Region != "" || n.Zone != "" {
		lines = append(lines, []string{"PLACE", strings.TrimSpace(n.Region + " " + n.Zone)})
	}
	for _, p := range n.Problems {
		lines = append(lines, []string{"PROBLEM", p})
	}
	return lines
}
