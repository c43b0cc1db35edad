package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"

	"google.golang.org/protobuf/proto"

	"starling/agent/network/resolv"
	"starling/master/mesos"
)

// enter gives a container what is wanted of what only one can have, and notes that on disk, before anything is made.
func (n *Networks) enter(ctx context.Context, req Request, p plan) (*record, error) {
	if !validID(req.ID) {
		return nil, fmt.Errorf("id %q cannot be the name of a folder", req.ID)
	}
	r := &record{ID: req.ID, Boot: n.boot, Own: p.own, Hostname: p.hostname, Control: req.Control}
	if r.Hostname == "" {
		r.Hostname = hostnameOf(req.ID)
	}
	if slices.ContainsFunc(p.joins, func(j joining) bool { return j.bridge }) {
		if err := n.choosePlace(ctx); err != nil {
			return nil, err
		}
	}
	if err := n.reserve(r, p); err != nil {
		return nil, err
	}
	if err := n.save(r); err != nil {
		n.forget(r)
		return nil, errors.Join(err, os.RemoveAll(n.dir(r.ID)))
	}
	return r, nil
}

// reserve enters a record with addresses and ports that nobody else has.
func (n *Networks) reserve(r *record, p plan) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var taken []netip.Addr
	for i, j := range p.joins {
		if j.network == None {
			continue
		}
		d := device{Network: j.network, Name: "eth" + strconv.Itoa(i), Mappings: j.mappings}
		for _, m := range j.mappings {
			if by, ok := n.ports[m.String()]; ok {
				n.giveBack(taken)
				return fmt.Errorf("host port %s is mapped to container %q already", m, by)
			}
		}
		if j.bridge {
			addr, err := n.pool.take(j.address, inUse)
			if err != nil {
				n.giveBack(taken)
				return err
			}
			taken = append(taken, addr)
			d.Address = netip.PrefixFrom(addr, n.pool.subnet.Bits())
		}
		r.Devices = append(r.Devices, d)
	}
	for _, d := range r.Devices {
		for _, m := range d.Mappings {
			n.ports[m.String()] = r.ID
		}
	}
	n.records[r.ID] = r
	return nil
}

func (n *Networks) giveBack(addrs []netip.Addr) {
	for _, a := range addrs {
		n.pool.release(a)
	}
}

// forget frees what a record holds.
func (n *Networks) forget(r *record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.records[r.ID] != r {
		return
	}
	delete(n.records, r.ID)
	for _, d := range r.Devices {
		for _, m := range d.Mappings {
			if n.ports[m.String()] == r.ID {
				delete(n.ports, m.String())
			}
		}
		if d.CNI == nil && d.Address.IsValid() && n.pool != nil {
			n.pool.release(d.Address.Addr())
		}
	}
}

// build makes what the record says. Where it fails, the caller removes the record.
func (n *Networks) build(ctx context.Context, r *record, p plan) error {
	var said resolv.DNS
	if r.Own {
		if err := portsFree(r); err != nil {
			return err
		}
		if err := makeNamespace(n.namespace(r.ID)); err != nil {
			return err
		}
		for i := range r.Devices {
			d := &r.Devices[i]
			if d.Address.IsValid() {
				if err := n.plug(ctx, r, *d); err != nil {
					return err
				}
				continue
			}
			dns, err := n.addCNI(ctx, r, d, joinOf(p, d.Network))
			if err != nil {
				return err
			}
			said = said.Or(dns)
		}
		if r.touchesRules() || slices.ContainsFunc(r.Devices, func(d device) bool { return d.CNI == nil }) {
			if err := n.apply(ctx, r); err != nil {
				return err
			}
		}
	}
	if err := n.writeFiles(r, said); err != nil {
		return err
	}
	var infos [][]byte
	for _, j := range p.joins {
		data, err := proto.Marshal(told(r, j))
		if err != nil {
			return fmt.Errorf("cannot note the network %q: %w", j.network, err)
		}
		infos = append(infos, data)
	}
	// Others read records under the lock.
	n.mu.Lock()
	r.Infos, r.Ready = infos, true
	n.mu.Unlock()
	return n.save(r)
}

func joinOf(p plan, network string) joining {
	i := slices.IndexFunc(p.joins, func(j joining) bool { return j.network == network })
	return p.joins[i]
}

// touchesRules tells whether rules speak of this container in particular.
func (r *record) touchesRules() bool {
	return r.Control || slices.ContainsFunc(r.Devices, func(d device) bool { return len(d.Mappings) > 0 && d.CNI == nil })
}

// told is what was asked for, with the address that came of it.
func told(r *record, j joining) *mesos.NetworkInfo {
	info := proto.CloneOf(j.info)
	info.IpAddresses = nil
	for _, d := range r.Devices {
		if d.Network == j.network && d.Address.IsValid() {
			text, family := d.Address.Addr().String(), mesos.NetworkInfo_IPv4
			if d.Address.Addr().Is6() {
				family = mesos.NetworkInfo_IPv6
			}
			info.IpAddresses = append(info.IpAddresses, &mesos.NetworkInfo_IPAddress{Protocol: family.Enum(), IpAddress: &text})
		}
	}
	return info
}

// portsFree tells whether a process of the node listens on a port that is to be mapped: it would no longer be reached.
func portsFree(r *record) error {
	for _, d := range r.Devices {
		for _, m := range d.Mappings {
			var err error
			address := ":" + strconv.Itoa(int(m.Host))
			if m.Protocol == "udp" {
				var c net.PacketConn
				if c, err = net.ListenPacket("udp", address); err == nil {
					c.Close()
				}
			} else {
				var l net.Listener
				if l, err = net.Listen("tcp", address); err == nil {
					l.Close()
				}
			}
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("host port %s is in use by a process of this node", m)
			}
		}
	}
	return nil
}

// remove takes away what a record says, in the opposite order. What can't be taken away keeps the record, and with it the
// address and the ports.
func (n *Networks) remove(ctx context.Context, r *record) error {
	n.mu.Lock()
	r.Leaving, r.Ready = true, false
	n.mu.Unlock()
	if err := n.save(r); err != nil {
		// The next life would take it for whole, and then find it half. It goes on all the same: space may be what lacks.
		n.cfg.Log.Warn("cannot note that a network is being removed", "container_id", r.ID, "err", err)
	}
	var faults []error
	for i := len(r.Devices) - 1; i >= 0; i-- {
		if r.Devices[i].CNI != nil {
			faults = append(faults, n.delCNI(ctx, r, r.Devices[i]))
		}
	}
	if r.touchesRules() {
		faults = append(faults, n.apply(ctx, nil))
	}
	for _, d := range r.Devices {
		if d.CNI == nil && d.Address.IsValid() {
			faults = append(faults, unplug(d))
		}
	}
	if r.Own {
		faults = append(faults, dropNamespace(n.namespace(r.ID)))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("cannot take away the network of %q: %w", r.ID, err)
	}
	if err := os.RemoveAll(n.dir(r.ID)); err != nil {
		return fmt.Errorf("cannot take away the network of %q: %w", r.ID, err)
	}
	n.forget(r)
	return nil
}
