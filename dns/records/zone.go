package records

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Config is how a Zone answers.
type Config struct {
	// Domain is the zone's name, without a final dot; "mesos" by default.
	Domain string
	// TTL of all records, in seconds.
	TTL uint32
	// Weight of SRV records.
	Weight uint16
	// Mname and Rname are the SOA's, without final dots; ns1 and root.ns1 below the domain by default.
	Mname, Rname string
	// Refresh, Retry, Expire and Minimum are the SOA's, in seconds.
	Refresh, Retry, Expire, Minimum uint32
}

// DefaultConfig has a TTL of 5 s: an edge node would rather ask its own DNS server again than a task that has gone.
func DefaultConfig() Config {
	return Config{Domain: "mesos", TTL: 5, Weight: 1, Refresh: 60, Retry: 600, Expire: 86400, Minimum: 5}
}

// Validate tells all that is wrong with the configuration.
func (c Config) Validate() error {
	for _, name := range []string{c.Domain, c.Mname, c.Rname} {
		if _, err := wire(name); name != "" && err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	if c.Domain == "" {
		return fmt.Errorf("the domain is empty")
	}
	return nil
}

// Zone is the records of all sources. See the package's documentation.
type Zone struct {
	config Config
	apex   string // the domain as a key
	serial atomic.Uint32
	soa    []byte // the SOA's data without serial: mname and rname, then after the serial the four numbers
	mname  int    // length of the names in soa

	// names is read by every query and written by updates; the lock is held for map operations alone.
	mu    sync.RWMutex
	names map[string]*name

	// The rest belongs to the updates, one at a time.
	update  sync.Mutex
	sources map[string][]Record
}

// name is one node of the tree of names. The packed answers are swapped whole.
type name struct {
	packed atomic.Pointer[packed]
	// Guarded by Zone.update: the values with how many sources give them, and how many names exist below this one.
	values   map[value]int
	children int
}

// value is a record without its owner, comparable. Glue are addresses for the additional section.
type value struct {
	typ          Type
	addr         netip.Addr
	target       string // a key
	port         uint16
	glue4, glue6 netip.Addr
}

// NewZone returns an empty zone; the configuration must be valid.
func NewZone(c Config, serial uint32) *Zone {
	c.Domain = strings.ToLower(strings.TrimSuffix(c.Domain, "."))
	if c.Mname == "" {
		c.Mname = "ns1." + c.Domain
	}
	if c.Rname == "" {
		c.Rname = "root.ns1." + c.Domain
	}
	z := &Zone{config: c, names: map[string]*name{}, sources: map[string][]Record{}}
	z.apex, _ = wire(c.Domain)
	mname, _ := wire(c.Mname)
	rname, _ := wire(c.Rname)
	z.soa = []byte(mname + "\x00" + rname + "\x00")
	z.mname = len(z.soa)
	for _, n := range []uint32{c.Refresh, c.Retry, c.Expire, c.Minimum} {
		z.soa = append(z.soa, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	z.serial.Store(serial)
	apex := &name{values: map[value]int{}, children: 1} // it exists with nothing in it
	apex.packed.Store(&packed{})
	z.names[z.apex] = apex
	return z
}

// Config returns how the zone answers.
func (z *Zone) Config() Config { return z.config }

// Serial returns the SOA's serial number, which moves when records do.
func (z *Zone) Serial() uint32 { return z.serial.Load() }

// Replace makes the records of one source those given; none at all removes it. It tells whether anything changed.
func (z *Zone) Replace(source string, records []Record) bool {
	z.update.Lock()
	defer z.update.Unlock()
	old := z.sources[source]
	if slices.Equal(old, records) {
		return false
	}
	touched := map[string]bool{}
	// What is added first is never missing in between: a value that both have stays.
	for key, v := range z.values(records) {
		z.node(key).values[v]++
		touched[key] = true
	}
	for key, v := range z.values(old) {
		n := z.node(key)
		if n.values[v]--; n.values[v] == 0 {
			delete(n.values, v)
		}
		touched[key] = true
	}
	for key := range touched {
		z.settle(key)
	}
	if len(records) == 0 {
		delete(z.sources, source)
	} else {
		z.sources[source] = records
	}
	z.serial.Add(1)
	return true
}

// values yields the keys and values of one source's records, each SRV with the addresses that its target has in the
// same source.
func (z *Zone) values(records []Record) func(yield func(string, value) bool) {
	glue4, glue6 := map[string]netip.Addr{}, map[string]netip.Addr{}
	for _, r := range records {
		switch r.Type {
		case A:
			if _, ok := glue4[r.Name]; !ok {
				glue4[r.Name] = r.Addr
			}
		case AAAA:
			if _, ok := glue6[r.Name]; !ok {
				glue6[r.Name] = r.Addr
			}
		}
	}
	return func(yield func(string, value) bool) {
		for _, r := range records {
			key, err := wire(r.Name)
			if err != nil || !strings.HasSuffix(key, z.apex) {
				continue
			}
			v := value{typ: r.Type, addr: r.Addr}
			if r.Type == SRV {
				target, err := wire(r.Target)
				if err != nil {
					continue
				}
				v = value{typ: SRV, target: target, port: r.Port, glue4: glue4[r.Target], glue6: glue6[r.Target]}
			}
			if !yield(key, v) {
				return
			}
		}
	}
}

// node returns the node of a key and makes it where it lacks, with all between it and the apex.
func (z *Zone) node(key string) *name {
	z.mu.RLock()
	n := z.names[key]
	z.mu.RUnlock()
	if n != nil {
		return n
	}
	n = &name{values: map[value]int{}}
	n.packed.Store(&packed{})
	z.node(parent(key)).children++
	z.mu.Lock()
	z.names[key] = n
	z.mu.Unlock()
	return n
}

// settle packs the answers of a name anew, and drops the name, and those above it, when nothing is left.
func (z *Zone) settle(key string) {
	z.mu.RLock()
	n := z.names[key]
	z.mu.RUnlock()
	if n == nil {
		return
	}
	n.packed.Store(z.pack(slices.SortedFunc(maps.Keys(n.values), compareValues)))
	for len(n.values) == 0 && n.children == 0 {
		z.mu.Lock()
		delete(z.names, key)
		n, key = z.names[parent(key)], parent(key)
		z.mu.Unlock()
		n.children--
	}
}

func compareValues(a, b value) int {
	if a.typ != b.typ {
		return int(a.typ) - int(b.typ)
	}
	if c := a.addr.Compare(b.addr); c != 0 {
		return c
	}
	if c := strings.Compare(a.target, b.target); c != 0 {
		return c
	}
	if a.port != b.port {
		return int(a.port) - int(b.port)
	}
	return a.glue4.Compare(b.glue4)
}

// Lookup returns the records of a dotted name in a stable order, and whether the name exists; it may exist without any.
func (z *Zone) Lookup(owner string) (records []Record, exists bool) {
	key, err := wire(owner)
	if err != nil {
		return nil, false
	}
	z.update.Lock()
	defer z.update.Unlock()
	z.mu.RLock()
	n := z.names[key]
	z.mu.RUnlock()
	if n == nil {
		return nil, false
	}
	owner = dotted(key)
	for _, v := range slices.SortedFunc(maps.Keys(n.values), compareValues) {
		r := Record{Name: owner, Type: v.typ, Addr: v.addr, Port: v.port}
		if v.typ == SRV {
			r.Target = dotted(v.target)
		}
		if len(records) == 0 || records[len(records)-1] != r {
			records = append(records, r)
		}
	}
	return records, true
}

// Sources returns the records of each source, in the order in which they were given. The slices must not be modified.
func (z *Zone) Sources() map[string][]Record {
	z.update.Lock()
	defer z.update.Unlock()
	return maps.Clone(z.sources)
}

// InDomain tells whether a dotted name is the zone's own or below it.
func (z *Zone) InDomain(owner string) bool {
	key, err := wire(owner)
	return err == nil && within(key, z.apex)
}

// within compares label by label: "amesos" is not below "mesos".
func within(key, apex string) bool {
	for len(key) > len(apex) {
		key = parent(key)
	}
	return key == apex
}
