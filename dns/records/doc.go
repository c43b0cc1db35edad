// Package records turns what the mesh tells of nodes and tasks into DNS records, and keeps the answers packed.
//
// A Zone is a map from names to sets of records. Each source, a task or a node, contributes its own records to it, and
// replacing or removing one source's contribution touches that source's names alone, whatever the size of the zone.
// For each name the answer sections are kept as they go on the wire (RFC 1035, 2782), so that Answer, the hot path,
// only copies: it allocates nothing, and never waits for more than the swap of a pointer.
//
// Names, forms and rules are those of Mesos-DNS where its users depend on them (its specification, sections 2 to 6), and
// those of the RFCs elsewhere: EDNS0 is honoured, the asker's case is echoed, what does not exist is NXDOMAIN for SRV
// too, and names between existing ones (RFC 8020) are empty, not absent.
//
// The package does no I/O and has no clock and no goroutines; a Zone is safe for use by many.
package records
