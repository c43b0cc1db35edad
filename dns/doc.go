// Package dns answers for running tasks, on every node, from the mesh alone.
//
// A Server follows the change feed of its Source (the mesh's map of records) and keeps a records.Zone up to date: a task
// that runs has its names, a task that ends, is unhealthy, or whose node is suspected dead has none. Queries never wait
// for that. Over UDP the common questions are answered by Zone.Answer out of packed sets; everything else (TCP, other
// types, odd packets) goes through miekg/dns over the same zone.
//
// A record that does not decode costs its own names only, and is counted. Names outside of the domain are refused.
package dns
