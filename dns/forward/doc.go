// Package forward asks other DNS servers for names that are not ours, and remembers what they said.
//
// A Forwarder has resolvers: given ones, or those of the system, and for some zones others. A query goes, over the
// transport that its client used, to the first resolver that works; the next is asked when that one fails or is silent for
// about a second, and the first of them that is heard counts. A resolver that was not heard is asked last, and tried again
// in the background after a pause that doubles: a dead first resolver costs a second until its timeout, and nothing later.
// Those that were not heard are asked at once when no other is left.
// What a resolver says is final, an error too, as Mesos-DNS has it (its specification, section 7).
//
// Answers are cached for as long as they may be (RFC 2308), and shown for another day when no resolver is heard
// (RFC 8767). Equal questions that are asked at the same time go upstream once. Everything is bounded: the cache in
// octets, the queries upstream and the clients that wait for them in number; what is beyond fails at once and is counted.
//
// Answers from elsewhere are never believed about names in our own domain: such records are dropped.
//
// All of Exchange may be called from anywhere; Run must go on for as long as it is.
package forward
