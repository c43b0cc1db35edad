package network

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// wall is what the rules are to be: of all records that are not leaving.
func (n *Networks) wall() (f firewall, upTo uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f = firewall{bridge: n.place.Bridge, subnet: n.place.Subnet, denied: n.cfg.denied, control: n.cfg.Control}
	for _, r := range n.records {
		if r.Leaving {
			continue
		}
		for _, d := range r.Devices {
			if d.CNI != nil || !d.Address.IsValid() {
				continue
			}
			for _, m := range d.Mappings {
				f.mappings = append(f.mappings, target{m, d.Address.Addr()})
			}
			if r.Control {
				f.trusted = append(f.trusted, d.Address.Addr())
			}
		}
	}
	slices.SortFunc(f.mappings, func(a, b target) int { return strings.Compare(a.String(), b.String()) })
	slices.SortFunc(f.trusted, netip.Addr.Compare)
	return f, n.wanted
}

// apply brings the rules to what the records say; r, if given, is a container whose ports must not be led elsewhere by
// others. Many that come at once are served by one change.
func (n *Networks) apply(ctx context.Context, r *record) error {
	n.mu.Lock()
	valid := n.place.valid()
	n.wanted++
	mine := n.wanted
	n.mu.Unlock()
	if !valid {
		return nil
	}
	release, err := n.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	if n.done < mine {
		f, upTo := n.wall()
		text, _, err := bring(ctx, f)
		if err != nil {
			return err
		}
		n.done, n.seen = upTo, text
	}
	if r == nil {
		return nil
	}
	for _, d := range r.Devices {
		for _, m := range d.Mappings {
			if by := ledElsewhere(n.seen, m, chain("DNA", n.place.Bridge)); by != "" {
				return fmt.Errorf("host port %s is led elsewhere by the rules of chain %s", m, by)
			}
		}
		forgetFlows(d)
	}
	return nil
}

// ledElsewhere returns the chain of others, if there is one, that leads a port of the node to somebody else: a container of
// Docker, or of another agent.
func ledElsewhere(text string, m Mapping, own string) string {
	proto, port := "-p "+m.Protocol+" ", fmt.Sprintf("--dport %d ", m.Host)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[0] == "-A" && fields[1] != own && strings.Contains(line, "-j DNAT") &&
			strings.Contains(line, proto) && strings.Contains(line, port) {
			return fields[1]
		}
	}
	return ""
}

// keep brings back what somebody has taken away: of the bridge, and of the rules. It does nothing while nobody needs them.
func (n *Networks) keep(ctx context.Context) error {
	n.mu.Lock()
	var devices []device
	for _, r := range n.records {
		for _, d := range r.Devices {
			if r.Ready && d.CNI == nil && d.Address.IsValid() {
				devices = append(devices, d)
			}
		}
	}
	p := n.place
	n.mu.Unlock()
	if len(devices) == 0 || !p.valid() {
		return nil
	}
	release, err := n.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	made, err := n.bridge(p)
	if err != nil {
		return err
	}
	if made {
		n.cfg.Log.Warn("bridge of containers was gone and is restored", "bridge", p.Bridge)
	}
	if err := enslave(p.Bridge, devices); err != nil {
		return err
	}
	f, upTo := n.wall()
	// Others may wait to have their own changes made, and the first look finds what an earlier life had to say.
	ours := n.done == upTo && n.seen != ""
	text, intact, err := bring(ctx, f)
	if err != nil {
		return err
	}
	n.done, n.seen = upTo, text
	if intact || !ours {
		return nil
	}
	n.cfg.Log.Warn("rules of the containers' network were gone and are restored", "bridge", p.Bridge)
	return nil
}

// bring brings about the rules of f, and returns what there was before: as iptables-save tells it, and whether nothing of
// ours lacked.
func bring(ctx context.Context, f firewall) (text string, intact bool, err error) {
	// Somebody may change rules between the look and the change, which then fails as a whole.
	for range 2 {
		if text, err = run(ctx, "", "iptables-save"); err != nil {
			return "", false, err
		}
		s := parseSaved(text, f.bridge)
		if err = write(ctx, f.restore(s)); err == nil {
			return text, f.intact(s), nil
		}
	}
	return "", false, err
}

// removeRules takes away all rules of a bridge. Called with node held.
func removeRules(ctx context.Context, bridge string) error {
	if _, err := exec.LookPath("iptables-save"); err != nil {
		return nil // then there are none
	}
	text, err := run(ctx, "", "iptables-save")
	if err != nil {
		return err
	}
	return write(ctx, parseSaved(text, bridge).remove())
}

// write changes rules; empty input is no change.
func write(ctx context.Context, input string) error {
	if input == "" {
		return nil
	}
	_, err := run(ctx, input, "iptables-restore", "--noflush", "--wait", "10")
	return err
}

// run runs a program of the packet filter, and returns what it writes.
func run(ctx context.Context, input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, programTime, fmt.Errorf("%s took longer than %v", name, programTime))
	defer cancel()
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("cannot find %s, which networks of containers need (package iptables): %w", name, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(input)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("cannot change the packet filter: %s: %w: %.500s", name, err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}
