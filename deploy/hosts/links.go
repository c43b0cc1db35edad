package hosts

import (
	"fmt"
	"syscall"
)

// The faults of links. Each stays until it is undone; packets of the host with itself are never touched. Rules are added to those
// that there are, and Mend removes them all.

// drop adds a rule by which the host drops what comes in over its link.
func (h *Host) drop(match ...string) {
	h.network.t.Helper()
	h.run(h.iptables(), append(append([]string{"-w", "-A", "INPUT", "-i", "eth0"}, match...), "-j", "DROP")...)
}

func (h *Host) iptables() string {
	if h.network.six {
		return "ip6tables"
	}
	return "iptables"
}

// Deafen makes the host drop everything that comes from the others named, all if none is; they still hear it.
func (h *Host) Deafen(to ...*Host) {
	h.network.t.Helper()
	if len(to) == 0 {
		h.drop()
	}
	for _, o := range to {
		h.drop("-s", o.Addr)
	}
}

// Mute makes the others drop everything that comes from the host, which still hears them.
func (h *Host) Mute() {
	h.network.t.Helper()
	for _, o := range h.network.Hosts {
		if o != h {
			o.Deafen(h)
		}
	}
}

// Cut makes two hosts drop everything that comes from each other.
func (h *Host) Cut(o *Host) {
	h.network.t.Helper()
	h.Deafen(o)
	o.Deafen(h)
}

// Partition cuts all of the hosts named off from all others.
func (w *Network) Partition(side ...*Host) {
	w.t.Helper()
	within := map[*Host]bool{}
	for _, h := range side {
		within[h] = true
	}
	for _, h := range side {
		for _, o := range w.Hosts {
			if !within[o] {
				h.Cut(o)
			}
		}
	}
}

// Lose makes the host drop a part (0 to 1) of the packets that come in, those of one protocol ("udp", "tcp") or of "all".
func (h *Host) Lose(part float64, protocol string) {
	h.network.t.Helper()
	h.drop("-p", protocol, "-m", "statistic", "--mode", "random", "--probability", fmt.Sprintf("%.4f", part))
}

// Block makes the host drop all packets of a protocol that come in.
func (h *Host) Block(protocol string) {
	h.network.t.Helper()
	h.drop("-p", protocol)
}

// Mend removes the host's rules.
func (h *Host) Mend() {
	h.network.t.Helper()
	h.run(h.iptables(), "-w", "-F", "INPUT")
}

// Mend removes the rules of all hosts.
func (w *Network) Mend() {
	w.t.Helper()
	for _, h := range w.Hosts {
		h.Mend()
	}
}

// Unplug takes the host's cable out of the switch: the host notices.
func (h *Host) Unplug() {
	h.network.t.Helper()
	ip(h.network.t, "-n "+h.network.hub+" link set "+h.port+" down")
}

// Plug puts the cable back.
func (h *Host) Plug() {
	h.network.t.Helper()
	ip(h.network.t, "-n "+h.network.hub+" link set "+h.port+" up")
	h.route()
}

// MTU sets the largest packet of the host's link, in bytes.
func (h *Host) MTU(bytes int) {
	h.network.t.Helper()
	ip(h.network.t,
		fmt.Sprintf("-n %s link set eth0 mtu %d", h.netns, bytes),
		fmt.Sprintf("-n %s link set %s mtu %d", h.network.hub, h.port, bytes))
}

// Narrow makes the wire drop packets of the host's that are larger than so many bytes, and tell nobody, as a badly set up tunnel does.
func (h *Host) Narrow(bytes int) {
	h.network.t.Helper()
	ip(h.network.t,
		// Else segments of a stream would cross the wire in one piece of 64 KiB, which a bridge does not measure.
		"-n "+h.netns+" link set eth0 gso_max_segs 1",
		fmt.Sprintf("-n %s link set %s mtu %d", h.network.hub, h.port, bytes))
}

// Move gives the host another address, the one with that last number, in place of the one that it has.
func (h *Host) Move(number int) {
	h.network.t.Helper()
	old := h.Addr
	addr := h.network.addr(number)
	// In this order: an address of the same network that came second would go with the first.
	ip(h.network.t,
		"-n "+h.netns+" address flush dev eth0 scope global",
		"-n "+h.netns+" address add "+h.network.withBits(addr)+" dev eth0")
	h.network.mu.Lock()
	delete(h.network.owners, old)
	h.network.owners[addr] = h
	h.network.mu.Unlock()
	h.Addr = addr
	h.route()
}

// Pause stops the process as it is; Resume lets it go on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}
