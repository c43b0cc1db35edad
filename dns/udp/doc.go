// Package udp moves datagrams between sockets and a handler, many at a time.
//
// Listen opens the sockets of an address: on Linux one for each loop, all on the same port, among which the kernel spreads
// the clients. Run gives each socket a loop of its own: it takes what has arrived in one system call, has the handler
// answer each datagram on the spot, and sends all answers in another. The memory of a loop is made once; a datagram costs
// no allocation. An empty socket parks its loop in the runtime's poller.
//
// A handler must not wait. What takes longer it passes on to workers: goroutines made on demand, whose number is bounded;
// a datagram for which there is none is dropped and counted, so that the loop never stands still. A panic, in the handler
// or in a worker, costs its own datagram.
//
// An answer leaves from the address that was asked, also where the socket is bound to all of them. On systems other than
// Linux a plain loop, a datagram a call, does the same work; there a socket that is bound to all addresses leaves the
// choice to the system.
package udp
