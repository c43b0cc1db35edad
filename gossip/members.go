package gossip

import (
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

// members is memberlist's list of live nodes, kept in step by its events. Its own list may not be read for addresses: it hands out
// pointers to what it changes later, under a lock that nobody else has. All methods may be called from any goroutine; none blocks.
type members struct {
	mu    sync.Mutex
	nodes map[string]memberlist.Node
}

func newMembers() *members { return &members{nodes: map[string]memberlist.Node{}} }

// joined notes a node that is live, at a new address perhaps.
func (m *members) joined(n memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[n.Name] = n
}

// left notes that a node is dead or has left.
func (m *members) left(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nodes, name)
}

// get returns a live node.
func (m *members) get(name string) (memberlist.Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.nodes[name]
	return n, ok
}

// all returns the live nodes in order of names, this one included.
func (m *members) all() []memberlist.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	nodes := make([]memberlist.Node, 0, len(m.nodes))
	for _, n := range m.nodes {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b memberlist.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes
}
