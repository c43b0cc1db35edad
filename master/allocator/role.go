package allocator

import (
	"cmp"
	"slices"
	"strings"

	"starling/master/mesos/resources"
)

// names numbers the names of scalar resources, so that sums are slices.
type names struct {
	index map[string]int
	list  []string
}

func (n *names) of(name string) int {
	i, ok := n.index[name]
	if !ok {
		i = len(n.list)
		n.index[name] = i
		n.list = append(n.list, name)
	}
	return i
}

// vec holds an amount for each numbered name; what lies beyond its end is 0.
type vec []resources.Milli

func (v vec) at(i int) resources.Milli {
	if i < len(v) {
		return v[i]
	}
	return 0
}

// add adds d, sign times, in place where there is room.
func (v *vec) add(d vec, sign resources.Milli) {
	for len(*v) < len(d) {
		*v = append(*v, 0)
	}
	for i, m := range d {
		(*v)[i] += sign * m
	}
}

// set makes an amount that of a name.
func (v *vec) set(i int, m resources.Milli) {
	for len(*v) <= i {
		*v = append(*v, 0)
	}
	(*v)[i] = m
}

// count is how many names have an amount.
func (v vec) count() int {
	n := 0
	for _, m := range v {
		if m != 0 {
			n++
		}
	}
	return n
}

func (v vec) zero() bool {
	return !slices.ContainsFunc(v, func(m resources.Milli) bool { return m != 0 })
}

// quantities sums the scalars of resources by name.
func (a *Allocator) quantities(rs resources.Resources) vec {
	var v vec
	for name, amount := range rs.Scalars() {
		v.set(a.names.of(name), amount)
	}
	return v
}

// charge is what a client or a role has, and how often it was given something.
type charge struct {
	// all counts for fairness; plain, the part that is neither reserved nor revocable, for quotas.
	all, plain vec
	count      uint64

	cached     float64 // dominant share, not weighed
	generation uint64  // of the totals that cached belongs to
	valid      bool
}

// share is the dominant share: the largest fraction of the cluster among the scalars that count.
func (c *charge) share(a *Allocator) float64 {
	if c.valid && c.generation == a.generation {
		return c.cached
	}
	c.cached, c.generation, c.valid = 0, a.generation, true
	for i, m := range c.all {
		total := a.totals.at(i)
		if m <= 0 || total <= 0 || slices.Contains(a.cfg.Excluded, a.names.list[i]) {
			continue
		}
		c.cached = max(c.cached, float64(m)/float64(total))
	}
	return c.cached
}

func (c *charge) add(all, plain vec, sign resources.Milli) {
	c.all.add(all, sign)
	c.plain.add(plain, sign)
	c.valid = false
}

// node is a role, or the leaf below a role that holds the role's own clients: "a" with the sub-role "a/b" divides between
// "a/b" and its own leaf.
type node struct {
	path     Role // of a leaf: that of its role with "/." behind
	parent   *node
	children []*node // sub-roles and at most one leaf; sorted lazily
	isLeaf   bool
	clients  []*client // of a leaf: those that may get offers; sorted lazily

	charge
	weight   float64
	weighted bool // a weight was set, so that the node stays
	quota    *quota
	// refs counts the clients in and below, offers or not; a node without any goes.
	refs int
	// unsorted is set when the order of children or clients may have changed, sorted is the generation when it was right.
	unsorted bool
	sorted   uint64
}

// node returns the node of a role, with all above it made if need be.
func (a *Allocator) node(role Role) *node {
	if n := a.nodes[role]; n != nil {
		return n
	}
	parent := a.root
	if i := strings.LastIndexByte(role, '/'); i >= 0 {
		parent = a.node(role[:i])
	}
	n := &node{path: role, parent: parent, weight: 1}
	parent.children = append(parent.children, n)
	parent.unsorted = true
	a.nodes[role] = n
	return n
}

// leaf returns the leaf of a role.
func (n *node) leaf() *node {
	for _, c := range n.children {
		if c.isLeaf {
			return c
		}
	}
	l := &node{path: n.path + "/.", parent: n, isLeaf: true, weight: 1}
	n.children = append(n.children, l)
	n.unsorted = true
	return l
}

func (n *node) ref(d int) {
	for ; n != nil; n = n.parent {
		n.refs += d
	}
}

// prune takes a role out of the tree, and those above it, while nothing needs them.
func (a *Allocator) prune(n *node) {
	for ; n != nil && n != a.root && n.refs == 0 && !n.weighted && n.quota == nil; n = n.parent {
		if slices.ContainsFunc(n.children, func(c *node) bool { return !c.isLeaf }) {
			return
		}
		n.parent.children = slices.DeleteFunc(n.parent.children, func(o *node) bool { return o == n })
		delete(a.nodes, n.path)
	}
}

// debit changes what a client has, and with it all roles above.
func (a *Allocator) debit(c *client, rs resources.Resources, sign resources.Milli) {
	all := a.quantities(rs)
	plain := all
	if p := plainPart(rs); !p.Equal(rs) {
		plain = a.quantities(p)
	}
	c.add(all, plain, sign)
	c.leaf.unsorted = true
	a.quotas.epoch++
	for n := c.leaf; n != a.root; n = n.parent {
		n.add(all, plain, sign)
		n.parent.unsorted = true
		if sign < 0 && n.quota != nil {
			a.relieved(n)
		}
	}
}

// plainPart is what is neither reserved nor revocable.
func plainPart(rs resources.Resources) resources.Resources { return rs.Unreserved().NonRevocable() }

// given counts a grant.
func (c *client) given() {
	c.count++
	for n := c.leaf; n.parent != nil; n = n.parent {
		n.count++
	}
}

func (a *Allocator) compareNodes(x, y *node) int {
	if c := cmp.Compare(x.share(a)/x.weight, y.share(a)/y.weight); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(x.count, y.count), cmp.Compare(x.path, y.path))
}

// sort brings a node's children and clients into order, if they may be out of it.
func (a *Allocator) sort(n *node) {
	if !n.unsorted && n.sorted == a.generation {
		return
	}
	n.unsorted, n.sorted = false, a.generation
	if n.isLeaf {
		slices.SortFunc(n.clients, a.compareClients)
	} else {
		slices.SortFunc(n.children, a.compareNodes)
	}
}

// walk calls f for the clients that may get offers, the one first that has least, until it says no. Each part of the tree is
// taken in the order that holds when it is entered; what f does to shares shows in the next walk.
func (a *Allocator) walk(n *node, f func(*client) bool) bool {
	a.sort(n)
	for _, c := range n.clients {
		if !f(c) {
			return false
		}
	}
	for _, child := range n.children {
		if !a.walk(child, f) {
			return false
		}
	}
	return true
}

// compare orders any two clients as walk does.
func (a *Allocator) compare(x, y *client) int {
	if x.leaf == y.leaf {
		return a.compareClients(x, y)
	}
	m, n := x.leaf, y.leaf
	for d := m.depth() - n.depth(); d > 0; d-- {
		m = m.parent
	}
	for d := n.depth() - m.depth(); d > 0; d-- {
		n = n.parent
	}
	for m.parent != n.parent {
		m, n = m.parent, n.parent
	}
	return a.compareNodes(m, n)
}

func (n *node) depth() int {
	d := 0
	for ; n.parent != nil; n = n.parent {
		d++
	}
	return d
}
