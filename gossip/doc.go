// Package gossip is the mesh: every node of a cluster finds the others, learns which of them live, and holds a copy of every node's record.
//
// Membership and failure detection are memberlist's; the records are those of package record. The model:
//
//   - A change that a node makes to its record (a hot delta) goes at once, in one datagram, to a few random nodes; each passes
//     on what was news to it. The queue holds keys, not messages: a datagram is packed with the newest values when it
//     leaves, so a burst of changes to one key costs no more than one.
//   - Anti-entropy: once a second, a node shows a random other one a summary of what it holds. Where they differ they exchange
//     digests, and each sends what the other lacks. To a node that joins, memberlist's own exchange brings all digests.
//   - To join, a node tries seeds, mDNS and the peers of its last run until one of them answers. It goes on trying dead peers for
//     as long as it runs, less and less often.
//   - A value too large for a datagram goes over streams, to a few nodes at a time, in the same way.
//   - The cluster's key is replaced in steps (RotateKey). Each is taken when all nodes have acknowledged the one before, in their records.
//   - Whatever is dropped is counted, and anti-entropy makes good for it.
//   - Each node learns from its probes where it is in a space in which distances are round trips (network coordinates). Its place is in
//     its record; RTT computes distances.
//
// New binds the sockets, Run does everything else and leaves the mesh when its context ends. Reading and Set work at
// any time, from any goroutine, before Run too. Nothing that memberlist calls blocks: callbacks hand over
// to goroutines of Run through bounded queues.
//
// Failures: where the network is down, a seed does not answer or multicast is not allowed, that is logged, and tried again.
// Run returns an error only where going on makes no sense: ErrDuplicate if another node lives under the same name. The mesh carries facts, never orders: whoever has the cluster key can write anything into a record, so
// nothing may be started, ended or deleted because of a record alone.
//
// What it costs and how fast it is depends on the profile:
//
//	                                     lan                wan             local
//	for                                  a site with mixed  sites over the  one machine,
//	                                     links (default)    internet        tests
//	probe of a random node, answer       1 s, 0.5 s         5 s, 3 s        1 s, 0.2 s
//	nodes that probe it too, on failure  5                  5               1
//	time to object, 20 nodes             6.5 s              26 s            3.9 s
//	dead known to all of 20 nodes        10-14 s            42-72 s         6-10 s
//	pause between rounds of hot deltas   100 ms             250 ms          100 ms
//	round of anti-entropy                1 s                3 s             1 s
//	exchange of all members              15 s               60 s            15 s
//	largest datagram                     1,200 B            1,200 B         1,400 B
//
// The time to object grows with the logarithm of the number of nodes, and in lan is up to twice, else six times, as long until others could not reach
// the node either; the exchange of all members becomes rarer with each doubling beyond 32 nodes. Datagrams of 1,200 bytes pass every link
// that IPv6 may use. All numbers are in testdata/profiles.txt, which a test holds to what is in force.
//
// A node that memberlist has given up is asked before it counts as dead here, for 2 s (lan), 10 s (wan) or 1 s (local). With 20 % of all datagrams and segments of
// streams lost for ten minutes, or 40 % for two, no node of 20 was held for dead by another one. A node that can send but not
// receive, or receive but not send, is dead to all others, once, and they go on believing in each other. A node that comes and
// goes without being restarted is believed the first time; from the second on it counts as dead until it has stayed for 10 s, 20 s, and so on up
// to 2 minutes. (go test ./gossip -full -v -run 'Death|Loss|Cuts|Paused|Flapping', profile lan unless said.)
//
// How it grows, measured in one process on two busy processors, in virtual time, over a network of 1-5 ms without loss, profile lan, all nodes
// dropped in at once with one seed for all (go test ./gossip -run Figures -v -timeout 0 -figures N). Virtual time leaves out what the
// processors are too slow for: on machines of their own, each node pays for itself alone.
//
//	nodes                                        20       100      300      1,000
//	all know all                                 2.5 s    4.8 s    6.8 s    21 s
//	  bytes a node for that                      20 kB    142 kB   300 kB   1.1 MB
//	a change at 50 % of the nodes                10 ms    15 ms    15 ms    20 ms
//	  99 %                                       15 ms    110 ms   115 ms   125 ms
//	  all                                        20 ms    110 ms   135 ms   200 ms
//	  all, the worst of ten                      110 ms   200 ms   200 ms   210 ms
//	idle, bytes a second a node                  0.96 kB  1.0 kB   1.5 kB   2.5 kB
//	  CPU a second a node                        0.05 ms  0.1 ms   0.2 ms   0.6 ms
//	60 bytes changed each second on each node
//	  bytes a second a node                      7.1 kB   12 kB    12 kB    17 kB
//	  CPU a second a node                        0.5 ms   0.9 ms   1.6 ms   4.4 ms
//	  age of a copy, median                      0        1.0 s    4.7 s    11 s
//	  age of a copy, 99 %                        0.3 s    3.8 s    13 s     19 s
//	  all agree after the last change            0.6 s    4.1 s    14 s     68 s
//	dead node first suspected                    2.2 s    1.8 s    2.4 s    2.0 s
//	  held for dead by all                       10.4 s   13.8 s   16.7 s   19.1 s
//	heap a node, records nearly empty            277 kB   404 kB   796 kB   2.2 MB
//
// A change takes as many rounds as the logarithm of the number of nodes, 100 ms each after the first. So does suspicion. Idle traffic is
// probes and a summary a second, which do not grow, and memberlist's exchange of all members, which grows with their number. What
// every node has to hear of every other grows with both: with one change a second each, 100 nodes change more than 15 KiB/s can
// carry with each copy sent several times, and beyond that copies age. The joins of many at once are quadratic: everybody hears of everybody.
//
// A thousand changes of tasks a second in a mesh of 20 nodes take 14 kB/s of each if one node makes them, and 19 kB/s if all do; all
// know the end of every task 15 and 45 s after the last of 25 seconds of it (-run Thousand).
//
// DESIGN.md beside this file says why it is as it is.
package gossip
