package zookeeper

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// Fake is an ensemble in memory, whose connections and sessions end on command. It keeps the promises of a real one that
// Client uses, ACLs and the limits of packets excepted. The zero value is empty and serves.
type Fake struct {
	mu       sync.Mutex // guards all of it and of its connections
	nodes    map[string]*fakeNode
	zxid     int64
	sessions int64
	conns    map[*Client]*fakeConn
	down     bool
	slow     chan struct{} // closed when the disks keep up again; nil while they do
}

type fakeNode struct {
	data     []byte
	stat     zk.Stat
	sequence int32 // of the next sequential child
}

// fakeConn is the connection of one client, over all of its sessions.
type fakeConn struct {
	f       *Fake
	c       *Client
	session int64         // 0: none, or expired without the client knowing
	had     bool          // a session
	up      bool          // connected
	cut     bool          // may not connect
	lost    chan struct{} // closed when the present connection ends
	expiry  *time.Timer
	watches []fakeWatch
	tell    chan zk.State // to a goroutine that tells the client, in order; closed by close
	told    chan struct{} // closed when that has ended
}

type fakeWatch struct {
	path     string
	children bool
	ch       chan zk.Event
}

// New returns a client of this ensemble; only the URL's path matters.
func (f *Fake) New(cfg Config) (*Client, error) {
	return newClient(cfg, func(c *Client) (backend, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.conns == nil {
			f.conns = make(map[*Client]*fakeConn)
		}
		n := &fakeConn{f: f, c: c, tell: make(chan zk.State, 1024), told: make(chan struct{})}
		go func() {
			defer close(n.told)
			for state := range n.tell {
				c.event(zk.Event{Type: zk.EventSession, State: state, Server: "fake"})
			}
		}()
		f.conns[c] = n
		n.connect()
		return n, nil
	})
}

// Expire ends the session of a client: its ephemeral nodes go, and it takes a new session as soon as it is connected.
func (f *Fake) Expire(c *Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.conns[c]
	if n == nil || n.session == 0 {
		return
	}
	n.expire()
	if n.up {
		n.disconnect()
		n.connect()
	}
}

// Disconnect breaks the connection of a client, and lets it have none until Reconnect. Its session expires in time.
func (f *Fake) Disconnect(c *Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.conns[c]; n != nil {
		n.cut = true
		n.disconnect()
	}
}

// Reconnect lets a client connect again.
func (f *Fake) Reconnect(c *Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.conns[c]; n != nil {
		n.cut = false
		n.connect()
	}
}

// Stop breaks all connections, as a lost quorum does: no session expires meanwhile.
func (f *Fake) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
	for _, n := range f.conns {
		n.disconnect()
	}
}

// Start ends what Stop began; the clocks of all sessions begin anew.
func (f *Fake) Start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
	for _, n := range f.conns {
		n.connect()
		if !n.up {
			n.countdown()
		}
	}
}

// Slow begins or ends a time in which no Sync is answered, as it waits for writes that the disks don't finish. Sessions are not
// touched by that.
func (f *Fake) Slow(slow bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case slow && f.slow == nil:
		f.slow = make(chan struct{})
	case !slow && f.slow != nil:
		close(f.slow)
		f.slow = nil
	}
}

// Wipe forgets all nodes and sessions, as new disks do. It comes between Stop and Start.
func (f *Fake) Wipe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes, f.zxid = nil, 0
	for _, n := range f.conns {
		n.session = 0
	}
}

// All below is called with f.mu held, but for the methods of backend.

func (n *fakeConn) connect() {
	if n.up || n.cut || n.f.down {
		return
	}
	n.stopCountdown()
	if n.session == 0 {
		if n.had {
			n.say(zk.StateExpired)
		}
		n.had = true
		n.dropWatches()
		n.f.sessions++
		n.session = n.f.sessions
	}
	n.up, n.lost = true, make(chan struct{})
	n.say(zk.StateConnected)
	n.say(zk.StateHasSession)
}

func (n *fakeConn) disconnect() {
	if !n.up {
		return
	}
	n.up = false
	close(n.lost)
	n.say(zk.StateDisconnected)
	n.countdown()
}

func (n *fakeConn) say(s zk.State) {
	select {
	case n.tell <- s:
	default: // a client that never listens
	}
}

// countdown lets the session expire in time.
func (n *fakeConn) countdown() {
	n.stopCountdown()
	if n.f.down || n.session == 0 {
		return
	}
	session := n.session
	n.expiry = time.AfterFunc(n.c.cfg.SessionTimeout, func() {
		n.f.mu.Lock()
		defer n.f.mu.Unlock()
		if n.session == session && !n.up && !n.f.down {
			n.expire()
		}
	})
}

func (n *fakeConn) stopCountdown() {
	if n.expiry != nil {
		n.expiry.Stop()
	}
}

func (n *fakeConn) expire() {
	owner := n.session
	n.session = 0
	for p, node := range n.f.nodes {
		if node.stat.EphemeralOwner == owner {
			n.f.remove(p)
		}
	}
}

func (n *fakeConn) dropWatches() {
	for _, w := range n.watches {
		w.ch <- zk.Event{Type: zk.EventNotWatching, State: zk.StateDisconnected, Path: w.path, Err: zk.ErrSessionExpired}
		close(w.ch)
	}
	n.watches = nil
}

func (n *fakeConn) watch(p string, children bool) <-chan zk.Event {
	ch := make(chan zk.Event, 1)
	n.watches = append(n.watches, fakeWatch{path: p, children: children, ch: ch})
	return ch
}

// fire tells the watches of a path.
func (f *Fake) fire(p string, children bool) {
	for _, n := range f.conns {
		kept := n.watches[:0]
		for _, w := range n.watches {
			if w.path == p && w.children == children {
				w.ch <- zk.Event{Type: zk.EventNodeDataChanged, State: zk.StateHasSession, Path: p}
				close(w.ch)
				continue
			}
			kept = append(kept, w)
		}
		n.watches = kept
	}
}

func (f *Fake) node(p string) *fakeNode {
	if p == "/" {
		return &fakeNode{}
	}
	return f.nodes[p]
}

// insert makes a node, and returns its path.
func (f *Fake) insert(p string, data []byte, flags int32, owner int64) (string, error) {
	parent := f.node(path.Dir(p))
	switch {
	case parent == nil:
		return "", zk.ErrNoNode
	case parent.stat.EphemeralOwner != 0:
		return "", zk.ErrNoChildrenForEphemerals
	}
	if flags&zk.FlagSequence != 0 {
		p = fmt.Sprintf("%s%010d", p, parent.sequence)
	}
	if f.nodes[p] != nil {
		return "", zk.ErrNodeExists
	}
	parent.sequence++ // ZooKeeper counts all children that came
	parent.stat.Cversion++
	node := &fakeNode{data: bytes.Clone(data), stat: zk.Stat{Czxid: f.zxid, Mzxid: f.zxid}}
	if flags&zk.FlagEphemeral != 0 {
		node.stat.EphemeralOwner = owner
	}
	if f.nodes == nil {
		f.nodes = make(map[string]*fakeNode)
	}
	f.nodes[p] = node
	f.fire(p, false)
	f.fire(path.Dir(p), true)
	return p, nil
}

func (f *Fake) remove(p string) {
	delete(f.nodes, p)
	f.fire(p, false)
	f.fire(p, true)
	f.fire(path.Dir(p), true)
}

func (f *Fake) children(p string) []string {
	names := []string{}
	for o := range f.nodes {
		if path.Dir(o) == p {
			names = append(names, path.Base(o))
		}
	}
	return names
}

// try checks one operation, and returns what does it.
func (f *Fake) try(op any, owner int64) (do func() zk.MultiResponse, err error) {
	check := func(p string, version int32) (*fakeNode, error) {
		node := f.nodes[p]
		switch {
		case node == nil:
			return nil, zk.ErrNoNode
		case version != -1 && version != node.stat.Version:
			return nil, zk.ErrBadVersion
		}
		return node, nil
	}
	switch op := op.(type) {
	case *zk.CreateRequest:
		if f.nodes[op.Path] != nil && op.Flags&zk.FlagSequence == 0 {
			return nil, zk.ErrNodeExists
		}
		return func() (r zk.MultiResponse) {
			r.String, r.Error = f.insert(op.Path, op.Data, op.Flags, owner)
			return r
		}, nil
	case *zk.SetDataRequest:
		node, err := check(op.Path, op.Version)
		return func() zk.MultiResponse {
			node.data = bytes.Clone(op.Data)
			node.stat.Version++
			node.stat.Mzxid = f.zxid
			f.fire(op.Path, false)
			stat := node.stat
			return zk.MultiResponse{Stat: &stat}
		}, err
	case *zk.DeleteRequest:
		_, err := check(op.Path, op.Version)
		if err == nil && len(f.children(op.Path)) > 0 {
			err = zk.ErrNotEmpty
		}
		return func() zk.MultiResponse { f.remove(op.Path); return zk.MultiResponse{} }, err
	case *zk.CheckVersionRequest:
		_, err := check(op.Path, op.Version)
		return func() zk.MultiResponse { return zk.MultiResponse{} }, err
	}
	return nil, fmt.Errorf("unknown operation %T", op)
}

// reach locks the ensemble for a call of a client that is connected.
func (n *fakeConn) reach() error {
	n.f.mu.Lock()
	if !n.up {
		n.f.mu.Unlock()
		return zk.ErrConnectionClosed
	}
	return nil
}

func (n *fakeConn) Create(p string, data []byte, flags int32, _ []zk.ACL) (string, error) {
	if err := n.reach(); err != nil {
		return "", err
	}
	defer n.f.mu.Unlock()
	n.f.zxid++
	return n.f.insert(p, data, flags, n.session)
}

func (n *fakeConn) Delete(p string, version int32) error {
	_, err := n.Multi(&zk.DeleteRequest{Path: p, Version: version})
	return err
}

func (n *fakeConn) Get(p string) ([]byte, *zk.Stat, error) {
	if err := n.reach(); err != nil {
		return nil, nil, err
	}
	defer n.f.mu.Unlock()
	node := n.f.node(p)
	if node == nil {
		return nil, nil, zk.ErrNoNode
	}
	stat := node.stat
	return bytes.Clone(node.data), &stat, nil
}

func (n *fakeConn) Exists(p string) (bool, *zk.Stat, error) {
	there, stat, _, err := n.exists(p, false)
	return there, stat, err
}

func (n *fakeConn) ExistsW(p string) (bool, *zk.Stat, <-chan zk.Event, error) {
	return n.exists(p, true)
}

func (n *fakeConn) exists(p string, watch bool) (bool, *zk.Stat, <-chan zk.Event, error) {
	if err := n.reach(); err != nil {
		return false, nil, nil, err
	}
	defer n.f.mu.Unlock()
	var ch <-chan zk.Event
	if watch {
		ch = n.watch(p, false)
	}
	node := n.f.node(p)
	if node == nil {
		return false, &zk.Stat{}, ch, nil
	}
	stat := node.stat
	return true, &stat, ch, nil
}

func (n *fakeConn) Children(p string) ([]string, *zk.Stat, error) {
	names, stat, _, err := n.list(p, false)
	return names, stat, err
}

func (n *fakeConn) ChildrenW(p string) ([]string, *zk.Stat, <-chan zk.Event, error) {
	return n.list(p, true)
}

func (n *fakeConn) list(p string, watch bool) ([]string, *zk.Stat, <-chan zk.Event, error) {
	if err := n.reach(); err != nil {
		return nil, nil, nil, err
	}
	defer n.f.mu.Unlock()
	node := n.f.node(p)
	if node == nil {
		return nil, nil, nil, zk.ErrNoNode
	}
	var ch <-chan zk.Event
	if watch {
		ch = n.watch(p, true)
	}
	stat := node.stat
	return n.f.children(p), &stat, ch, nil
}

func (n *fakeConn) Multi(ops ...any) ([]zk.MultiResponse, error) {
	if err := n.reach(); err != nil {
		return nil, err
	}
	defer n.f.mu.Unlock()
	// No two of our operations touch one node, and none needs what another makes: all are checked first.
	var todo []func() zk.MultiResponse
	for _, op := range ops {
		do, err := n.f.try(op, n.session)
		if c, ok := op.(*zk.CreateRequest); ok && err == nil && n.f.node(path.Dir(c.Path)) == nil {
			err = zk.ErrNoNode
		}
		if err != nil {
			return nil, err
		}
		todo = append(todo, do)
	}
	n.f.zxid++
	var answers []zk.MultiResponse
	for _, do := range todo {
		answers = append(answers, do())
	}
	return answers, nil
}

func (n *fakeConn) Sync(p string) (string, error) {
	if err := n.reach(); err != nil {
		return "", err
	}
	slow, lost := n.f.slow, n.lost
	n.f.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-lost:
			return "", zk.ErrConnectionClosed
		}
	}
	return p, nil
}

func (n *fakeConn) AddAuth(string, []byte) error {
	if err := n.reach(); err != nil {
		return err
	}
	defer n.f.mu.Unlock()
	return nil
}

func (n *fakeConn) SessionID() int64 {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	return n.session
}

func (n *fakeConn) drop() {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	n.disconnect()
	n.connect()
}

func (n *fakeConn) granted() time.Duration { return n.c.cfg.SessionTimeout }

func (n *fakeConn) close() {
	n.f.mu.Lock()
	n.stopCountdown()
	if n.up {
		n.expire()
	} else if n.session != 0 {
		n.countdown()
	}
	if n.up {
		close(n.lost)
	}
	n.up, n.cut = false, true
	for _, w := range n.watches {
		close(w.ch)
	}
	n.watches = nil
	delete(n.f.conns, n.c)
	n.f.mu.Unlock()
	close(n.tell)
	<-n.told
}

// Nodes returns the paths of all nodes whose name begins so, for a test to look at.
func (f *Fake) Nodes(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for p := range f.nodes {
		if strings.HasPrefix(p, prefix) {
			out = append(out, p)
		}
	}
	return out
}
