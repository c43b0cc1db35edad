// Package records turns what the mesh tells of nodes and tasks into DNS records, and keeps the answers nearly ready.
//
// A Zone is an index from names to values. Each source, a task or a node, contributes its own records to it, and replacing
// or removing one source's contribution touches that source's names alone, whatever the size of the zone: a name is
// a block of octets that is made anew and swapped by one store, and one with hundreds of values a list of blocks of which
// one is. So nobody who asks ever waits for an update, by Answer or by Lookup, and sees a name as it was before or as it is
// after. Answer, the hot path, writes values straight into the message (RFC 1035, 2782) and allocates nothing. Of a task
// the zone keeps a compact form, out of which its records are made again when it goes.
//
// Names, forms and rules are those of Mesos-DNS where its users depend on them (its specification, sections 2 to 6), and
// those of the RFCs elsewhere: EDNS0 is honoured, the asker's case is echoed, what does not exist is NXDOMAIN for SRV
// too, names between existing ones (RFC 8020) are empty, not absent, and labels that would be too long are shortened.
//
// The domain keeps some names for itself. Below "near", "node" and "agent" no framework has names: a framework of which
// that is the last label has those below "slave" only, and none of its own. What is below "agent" is what is below
// "slave", under its newer name. A framework called leader, master, master0 and so on, slave, or as the name server is, has
// no record of its own; its tasks have theirs. All of that is counted, see Stats.
//
// The serial number moves by Commit alone, once a batch of changes. Names outside of the domain, for PTR, may be in a Zone
// too; Lookup finds them, Answer leaves them alone.
//
// The package does no I/O and has no clock and no goroutines; a Zone is safe for use by many.
package records
