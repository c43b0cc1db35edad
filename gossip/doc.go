// Package gossip is the mesh: every node of a cluster finds the others, learns which of them live, and holds a copy of every node's record.
//
// Membership and failure detection are memberlist's; the records are those of package record. In five lines:
//
//   - A change of the own record goes at once, in one datagram, to a few random nodes; each passes on once what
//     was news to it. The queue holds keys, not messages: a datagram is packed with the newest values when it
//     leaves, so a burst of changes to one key costs no more than one.
//   - Once a second, a node shows a random other one a summary of what it holds; where they differ, digests are
//     exchanged, and whoever has more sends it. memberlist's own exchange over streams carries all digests too.
//   - Seeds, mDNS, and the peers of the last run are tried until one answers, and dead peers for ever, ever more rarely.
//   - A value too large for a datagram goes over streams, to a few nodes at a time, in the same way.
//   - Whoever drops anything counts it; anti-entropy makes good what was lost.
//
// New binds the sockets, Run does everything else and leaves the mesh when its context ends. Reading and Set work at
// any time, from any goroutine, before Run too. Nothing that memberlist calls blocks: callbacks hand over
// to goroutines of Run through bounded queues.
//
// Failures: a network that is down, a seed that does not answer or a multicast that is not allowed are waited
// out and logged. Run returns an error only where going on makes no sense: ErrDuplicate if another node lives under
// the same name. The mesh carries facts, never orders: whoever has the cluster key can write what it likes here, so
// nobody may start, end or delete anything because of a record alone.
//
// What it costs and how fast it is depends on the profile:
//
//	profile  probe  dead known to all of 20 nodes  datagram  for
//	lan      1 s    12-13 s                        1,400 B   a site with mixed links (default; profile A of the fault matrix)
//	wan      5 s    45-63 s                        1,200 B   sites over the internet, tunnels
//	local    1 s    6-9 s                          1,400 B   one machine, tests
//
// With 20 or 40 % of datagrams lost for 150 s, no profile held one of 20 healthy nodes for dead; streams, which carry the last attempt of
// a probe, were whole in that simulation, as package memnet does not model their loss.
//
// All of this was measured in virtual time over a network of 1-5 ms (go test ./gossip -run Figures -v -figures N), profile lan:
//
//	nodes  bytes a second a node: idle, one change a second on each node  a change to 50 %, 99 %, all of the nodes
//	20     0.9 kB, 11 kB                                                  10 ms, 15 ms, 85 ms
//	100    0.9 kB, 21 kB (hot deltas at their bound)                      15 ms, 105 ms, 110 ms
//
// DESIGN.md beside this file says why it is as it is.
package gossip
