package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// profile is what a profile sets beside memberlist's own values. A test holds all of them, so that a release of memberlist that changes a default
// does not change ours.
type profile struct {
	memberlist *memberlist.Config
	// retransmit times the decimal logarithm of the number of nodes is how often a node sends an entry.
	retransmit int
	// fanout is the number of nodes that a round of hot deltas goes to.
	fanout int
	// coalesce is the pause between two rounds of hot deltas.
	coalesce time.Duration
	// sync is the time between two rounds of anti-entropy.
	sync time.Duration
}

// safeDatagram is the size of datagrams that get through everywhere: IPv6 promises 1,280 bytes, of which its header and that of UDP take 48;
// the rest is left to tunnels that don't say what they add. Larger ones vanish without a word where routers may not send ICMP, or
// fragments are dropped, and with them the same entries again and again. As against 1,400 bytes it costs nothing: at 100 nodes that change once
// a second, 28 datagrams a second instead of 26.
const safeDatagram = 1200

func newProfile(name string) profile {
	var c *memberlist.Config
	p := profile{retransmit: 3, fanout: 3, coalesce: 100 * time.Millisecond, sync: time.Second}
	switch name {
	case ProfileWAN:
		// A probe each 5 s, of 3 s: round trips of hundreds of milliseconds, and links that are full for seconds, are in order there.
		c = memberlist.DefaultWANConfig()
		c.SuspicionMult = 4 // times 5 s; see lan
		c.IndirectChecks = 5
		c.UDPBufferSize = safeDatagram
		// Uplinks are narrow: fewer rounds, each with more to say.
		p.coalesce, p.sync = 250*time.Millisecond, 3*time.Second
	case ProfileLocal:
		// Loopback loses nothing, so memberlist may be quick and lazy; but a machine that is busy with tests takes longer than 1 s to accept.
		c = memberlist.DefaultLocalConfig()
		c.TCPTimeout = 5 * time.Second
	default:
		// Profile A of the fault matrix, which buried none of 20 healthy nodes at 40 % loss: more witnesses, each told more often. But for SuspicionMult,
		// which is 8 there: what memberlist buries is verified before it counts as dead, and that takes the time that is saved here.
		c = memberlist.DefaultLANConfig()
		c.SuspicionMult = 5
		// Where few are left to agree, as after several deaths at once among a handful of nodes, memberlist would wait six times as long.
		c.SuspicionMaxTimeoutMult = 2
		c.IndirectChecks = 5
		c.GossipNodes = 5
		c.RetransmitMult = 6
		// Where datagrams don't pass, this is how members are heard of.
		c.PushPullInterval = 15 * time.Second
		// A peer that is gone holds up a sender for so long.
		c.TCPTimeout = 5 * time.Second
		c.UDPBufferSize = safeDatagram
	}
	// LZW costs three times the CPU of everything else, for half the bytes; entries are packed tightly as it is.
	c.EnableCompression = false
	// A node that comes back under another address may take its name as soon as its old self was given up.
	c.DeadNodeReclaimTime = time.Second
	p.memberlist = c
	return p
}
