// Package dns answers for running tasks, on every node, from the mesh alone.
//
// A Server follows the change feed of its Source (the mesh's map of records) and keeps a records.Zone up to date: a task
// that runs has its names, a task that ends, is unhealthy, or whose node is suspected dead has none. Queries never wait
// for that.
//
// A query over UDP is read, with others, by one of the loops of dns/udp, which answers the common questions itself, by
// Zone.Answer out of packed sets. Everything else (other types, odd packets, names outside of the domain, and all that
// comes over TCP, see dns/tcp) goes through miekg/dns over the same zone: the general path, on goroutines whose number is
// bounded. Those that may wait for resolvers have a bound of their own, so that they never keep the domain's names from
// being answered. Clients outside of the allowed networks have a rate, see dns/limit.
//
// A record that does not decode costs its own names only, a query that makes the server panic costs its own answer
// (SERVFAIL); both are counted. What metrics there are, and what each means, says metrics.go.
package dns
