// Package network gives containers of the mesos containerizer networks of their own: namespaces, addresses, ports of the
// node that lead to them.
//
// A namespace is a file onto which it is bind-mounted. It is made before any process of the container, and outlives agent
// and supervisor; so do the device in it and the rules of the packet filter. What was given to whom is noted on disk before
// it is made (record.go), so that whatever a crash leaves behind is found and taken away, and nothing else is.
//
// The network that is built in is a bridge of the node (bridge_linux.go): addresses of a private subnet (addresses.go), veth
// pairs, masquerading to the outside, mapped ports by NAT (rules.go, firewall.go). Others are those of CNI plugins that an
// operator has configured (cni.go). Who asks for no network by name is in that of the node, as with Mesos.
//
// All methods may be called from any goroutine. What is done with one id is done one after the other. Everything that
// waits for the kernel or for a program has a deadline, and an Attach that fails leaves nothing.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"starling/agent/network/resolv"
	"starling/master/mesos"
)

// Defaults of Config.
const (
	DefaultBridge = "starling0"
	DefaultName   = "mesos-bridge"
	// DefaultDenied is where clouds tell a machine its secrets.
	DefaultDenied = "169.254.0.0/16"
)

const (
	// programTime bounds one run of iptables, pluginTime one of a CNI plugin.
	programTime = 20 * time.Second
	pluginTime  = time.Minute
	// collectAtOnce is how many networks are taken away side by side.
	collectAtOnce = 32
	// checkEvery is how often it is seen to that bridge and rules are still there.
	checkEvery = 10 * time.Second
)

// Config of the networks of a node.
type Config struct {
	// Dir is the absolute path of a folder for records and namespaces; it stays the same over restarts, and is not shared.
	Dir string
	// Bridge is the name of the bridge, of at most 15 small letters, digits, "-" and "_". Empty is DefaultBridge, or the next
	// free number where another agent of this machine has that.
	Bridge string
	// Subnet is that of the bridge, as "10.1.0.0/20"; between /8 and /29. Empty is one that overlaps no route of the node; it
	// is remembered.
	Subnet string
	// Name is by what name frameworks ask for the bridge. Default: DefaultName.
	Name string
	// CNIConfigDir holds the configurations of other networks; CNIPluginsDir is where their plugins are: folders with colons
	// between them. Empty for none.
	CNIConfigDir, CNIPluginsDir string
	// DNS is what the operator sets for resolv.conf; nil for nothing.
	DNS *resolv.Defaults
	// GatewayDNS tells that the node, where DNS has containers ask it, answers on its address on the bridge as well: containers
	// there ask that one, which stays when the node's address changes.
	GatewayDNS bool
	// Control are the TCP and UDP ports of the node that containers may not reach, unless a request says so.
	Control []uint16
	// Denied are addresses or subnets that containers may not reach. Nil is DefaultDenied; empty is none.
	Denied []string
	Log    *slog.Logger

	subnet netip.Prefix
	denied []netip.Prefix
}

var (
	linkName    = regexp.MustCompile(`^[a-z0-9_-]{1,15}$`)
	networkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

func (c *Config) complete() error {
	var faults []error
	if !filepath.IsAbs(c.Dir) {
		faults = append(faults, fmt.Errorf("folder of the networks %q is not an absolute path", c.Dir))
	}
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Bridge == DefaultBridge {
		c.Bridge = "" // others of that machine may have it
	}
	if c.Bridge != "" && !linkName.MatchString(c.Bridge) {
		faults = append(faults, fmt.Errorf("bridge %q is not a name of at most 15 small letters, digits, dashes and underscores", c.Bridge))
	}
	if !networkName.MatchString(c.Name) || c.Name == None || c.Name == Host {
		faults = append(faults, fmt.Errorf("network name %q cannot be that of the bridge", c.Name))
	}
	if c.Subnet != "" {
		p, err := netip.ParsePrefix(c.Subnet)
		if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 {
			faults = append(faults, fmt.Errorf("subnet %q is not one of IPv4 between /8 and /29", c.Subnet))
		} else {
			c.subnet = p.Masked()
		}
	}
	if c.Denied == nil {
		c.Denied = []string{DefaultDenied}
	}
	for _, text := range c.Denied {
		p, err := netip.ParsePrefix(text)
		if a, addrErr := netip.ParseAddr(text); addrErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || !p.Addr().Is4() {
			faults = append(faults, fmt.Errorf("denied network %q is neither an IPv4 address nor a subnet", text))
			continue
		}
		c.denied = append(c.denied, p.Masked())
	}
	if c.Log == nil {
		faults = append(faults, errors.New("log is missing"))
	}
	return errors.Join(faults...)
}

// Networks are those of one node. Use New.
type Networks struct {
	cfg  Config
	boot string

	mu      sync.Mutex // guards the records with what follows from them, and is not held while anything is waited for
	records map[string]*record
	busy    map[string]chan struct{} // ids that are being worked on; closed when that is done
	ports   map[string]string        // mapped ports of the node, by whom
	place   place                    // which bridge, once chosen
	pool    *addresses               // of place, nil before that
	wanted  uint64                   // changes of the rules that were asked for

	node chan struct{} // of size 1: holds something while somebody changes the bridge or the rules
	done uint64        // changes that the rules have; guarded by node
	seen string        // what iptables-save told last; guarded by node
}

// Request asks for the network of a container or of a group.
type Request struct {
	ID string
	// Container says what is wanted: its network_infos and its hostname count. Nil is the node's network.
	Container *mesos.ContainerInfo
	// Control lets it reach the control ports of the node: an executor in a network of its own needs the agent.
	Control bool
}

// Attachment is the network of a container.
type Attachment struct {
	// Path is the file of the namespace; empty is the node's own.
	Path string
	// Infos are the networks with addresses, to be told with a status; nil for the node's own.
	Infos []*mesos.NetworkInfo
	// Hostname is for the UTS namespace; empty is the node's.
	Hostname string
	// Files are to be mounted into a root file system. They are of this container alone, never the node's own: it may write
	// to them.
	Files []File
}

// File is one of a container's files about its network.
type File struct{ Source, Target string }

// New reads what an earlier life of the agent left. It makes nothing on the node.
func New(cfg Config) (*Networks, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("cannot set up networks: %w", err)
	}
	n := &Networks{
		cfg: cfg, boot: bootID(), records: map[string]*record{}, busy: map[string]chan struct{}{}, ports: map[string]string{}, node: make(chan struct{}, 1),
	}
	if err := n.load(); err != nil {
		return nil, err
	}
	return n, nil
}

// Check tells whether a request makes sense here, before anything is made. The error lists all faults.
func (n *Networks) Check(req Request) error {
	p, err := n.read(req)
	if err == nil && p.own {
		err = usable()
	}
	return err
}

// hold waits until nobody works on an id, and keeps others away until release is called.
func (n *Networks) hold(ctx context.Context, id string) (release func(), err error) {
	for {
		n.mu.Lock()
		other, taken := n.busy[id]
		if !taken {
			mine := make(chan struct{})
			n.busy[id] = mine
			n.mu.Unlock()
			return func() {
				n.mu.Lock()
				delete(n.busy, id)
				n.mu.Unlock()
				close(mine)
			}, nil
		}
		n.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot work on the network of %q in time: %w", id, context.Cause(ctx))
		}
	}
}

// Attach makes the network that is asked for, and needs no process for that. What is there already is returned.
func (n *Networks) Attach(ctx context.Context, req Request) (Attachment, error) {
	if at, ok := n.Get(req.ID); ok {
		// What it is made of may have another name by now, or none.
		return at, nil
	}
	p, err := n.read(req)
	if err != nil {
		return Attachment{}, err
	}
	if !p.own && p.hostname == "" {
		return Attachment{}, nil
	}
	if err := usable(); p.own && err != nil {
		return Attachment{}, err
	}
	release, err := n.hold(ctx, req.ID)
	if err != nil {
		return Attachment{}, err
	}
	defer release()
	n.mu.Lock()
	old := n.records[req.ID]
	n.mu.Unlock()
	if old != nil && old.Ready {
		return n.attachment(old), nil
	}
	if old != nil { // what was begun and not finished
		if err := n.remove(ctx, old); err != nil {
			return Attachment{}, err
		}
	}
	r, err := n.enter(ctx, req, p)
	if err != nil {
		return Attachment{}, fmt.Errorf("cannot make the network of %q: %w", req.ID, err)
	}
	if err := n.build(ctx, r, p); err != nil {
		// Taken away even where the time of the caller is over.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), programTime)
		defer cancel()
		return Attachment{}, errors.Join(fmt.Errorf("cannot make the network of %q: %w", req.ID, err), n.remove(undo, r))
	}
	return n.attachment(r), nil
}

// Get returns what Attach has made, in this life of the agent or an earlier one.
func (n *Networks) Get(id string) (Attachment, bool) {
	n.mu.Lock()
	r := n.records[id]
	ready := r != nil && r.Ready
	n.mu.Unlock()
	if !ready {
		return Attachment{}, false
	}
	return n.attachment(r), true
}

// Detach takes a network away. One that is not there is no error; after an error it is tried again by the next call, and
// from time to time.
func (n *Networks) Detach(ctx context.Context, id string) error {
	release, err := n.hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	n.mu.Lock()
	r := n.records[id]
	n.mu.Unlock()
	if r == nil {
		return nil
	}
	return n.remove(ctx, r)
}

// Collect takes away what is of ours and belongs to nobody that is kept, and brings back what lacks of bridge and rules.
func (n *Networks) Collect(ctx context.Context, keep func(id string) bool) error {
	n.mu.Lock()
	var gone []string
	for id := range n.records {
		if !keep(id) {
			gone = append(gone, id)
		}
	}
	n.mu.Unlock()
	slices.Sort(gone)
	// Side by side: the rules are changed once for all that wait for that.
	faults := make([]error, len(gone))
	places := make(chan struct{}, collectAtOnce)
	var all sync.WaitGroup
	for i, id := range gone {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			faults[i] = n.Detach(ctx, id)
		})
	}
	all.Wait()
	return errors.Join(errors.Join(faults...), n.sweep(), n.keep(ctx))
}

// Run sees to it, until ctx ends, that bridge and rules stay, and tries again what could not be taken away.
func (n *Networks) Run(ctx context.Context) error {
	for {
		wait := time.NewTimer(checkEvery - time.Duration(rand.Int64N(int64(checkEvery/5))))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
		if err := n.keep(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.Error("cannot restore the network of containers", "err", err)
		}
		for _, id := range n.leaving() {
			if err := n.Detach(ctx, id); err != nil && ctx.Err() == nil {
				n.cfg.Log.Warn("network of an ended container is still there", "container_id", id, "err", err)
			}
		}
	}
}

// leaving lists what was to be taken away and is still there.
func (n *Networks) leaving() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []string
	for id, r := range n.records {
		if r.Leaving && n.busy[id] == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Close takes bridge and rules away, if no container has a network.
func (n *Networks) Close(ctx context.Context) error {
	n.mu.Lock()
	used := len(n.records) > 0 || !n.place.valid()
	n.mu.Unlock()
	if used {
		return nil
	}
	release, err := n.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	return n.dismantle(ctx)
}

// alone waits until nobody else changes the bridge or the rules, and keeps others from that until release is called.
func (n *Networks) alone(ctx context.Context) (release func(), err error) {
	select {
	case n.node <- struct{}{}:
		return func() { <-n.node }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot change the network of this node in time: %w", context.Cause(ctx))
	}
}
