// Package tcp takes DNS messages over TCP connections: two octets of length before each message (RFC 1035, 4.2.2), many
// queries a connection, also before the first of them is answered, and answers in any order (RFC 7766).
//
// Everything that a client could hold is bounded, in number and in time: connections in all and for one client, queries
// at once in all, for one client and for one connection, the wait for a query to begin, the time from its first octet to its last, and
// the wait for a client to take its answer, which takes nothing of what others need. When all connections are in use, a
// new one takes the place of the one that has been idle, or whose client has not read, longest.
package tcp
