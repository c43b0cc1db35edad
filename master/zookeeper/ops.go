package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-zookeeper/zk"
)

// Any as the version of a node makes an operation unconditional.
const Any int32 = -1

// path returns the whole path of one below that of the URL; "" is the latter itself.
func (c *Client) path(name string) string {
	if name == "" {
		return c.cfg.URL.Path
	}
	return c.cfg.URL.Path + "/" + name
}

// acl is who may do what with a new node.
func (c *Client) acl(access Access) []zk.ACL {
	switch {
	case c.cfg.URL.User == "":
		return zk.WorldACL(zk.PermAll)
	case access == Private:
		return []zk.ACL{{Perms: zk.PermAll, Scheme: "auth"}}
	}
	return []zk.ACL{{Perms: zk.PermAll, Scheme: "auth"}, {Perms: zk.PermRead, Scheme: "world", ID: "anyone"}}
}

// Create makes a node, and returns its name, which differs from the one given where it is sequential. All names are paths
// below that of the URL, without a leading slash. The data is the caller's again when Create has returned without an error.
func (c *Client) Create(ctx context.Context, name string, data []byte, mode Mode, access Access) (string, error) {
	created, err := call(ctx, c, func(b backend) (string, error) {
		return b.Create(c.path(name), data, int32(mode), c.acl(access))
	})
	if err != nil {
		return "", fmt.Errorf("cannot create node %q: %w", c.path(name), err)
	}
	return strings.TrimPrefix(created, c.cfg.URL.Path+"/"), nil
}

// MakePath makes persistent, empty nodes of the URL's path and the names that follow, as far as they lack.
func (c *Client) MakePath(ctx context.Context, access Access, names ...string) error {
	if err := c.makeNode(ctx, c.cfg.URL.Path, Public); err != nil {
		return err
	}
	for _, name := range names {
		if err := c.makeNode(ctx, c.path(name), access); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) makeNode(ctx context.Context, path string, access Access) error {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		part := path[:i]
		_, err := call(ctx, c, func(b backend) (struct{}, error) {
			// Looked for first, as who may not create below a parent is told just that, whether the node is there or not.
			there, _, err := b.Exists(part)
			if err == nil && !there {
				_, err = b.Create(part, nil, zk.FlagPersistent, c.acl(access))
			}
			return struct{}{}, err
		})
		if err != nil && !errors.Is(err, ErrNodeExists) {
			return fmt.Errorf("cannot create node %q: %w", part, err)
		}
	}
	return nil
}

// Delete removes a node whose version is the one given, or Any.
func (c *Client) Delete(ctx context.Context, name string, version int32) error {
	_, err := call(ctx, c, func(b backend) (struct{}, error) { return struct{}{}, b.Delete(c.path(name), version) })
	if err != nil {
		return fmt.Errorf("cannot delete node %q: %w", c.path(name), err)
	}
	return nil
}

type content struct {
	data  []byte
	stat  *Stat
	names []string
	watch <-chan Event
	there bool
}

// Get returns what a node holds.
func (c *Client) Get(ctx context.Context, name string) ([]byte, Stat, error) {
	got, err := call(ctx, c, func(b backend) (got content, err error) {
		got.data, got.stat, err = b.Get(c.path(name))
		return got, err
	})
	if err != nil {
		return nil, Stat{}, fmt.Errorf("cannot read node %q: %w", c.path(name), err)
	}
	return got.data, *got.stat, nil
}

// Stat tells whether a node is there; the Stat is empty where it is not.
func (c *Client) Stat(ctx context.Context, name string) (Stat, bool, error) {
	got, err := call(ctx, c, func(b backend) (got content, err error) {
		got.there, got.stat, err = b.Exists(c.path(name))
		return got, err
	})
	return existing(c.path(name), got, err)
}

// Watch is Stat, and tells of the next change: that the node is made, changed or deleted.
func (c *Client) Watch(ctx context.Context, name string) (Stat, bool, <-chan Event, error) {
	got, err := call(ctx, c, func(b backend) (got content, err error) {
		got.there, got.stat, got.watch, err = b.ExistsW(c.path(name))
		return got, err
	})
	stat, there, err := existing(c.path(name), got, err)
	return stat, there, got.watch, err
}

func existing(path string, got content, err error) (Stat, bool, error) {
	if err != nil {
		return Stat{}, false, fmt.Errorf("cannot look at node %q: %w", path, err)
	}
	if !got.there {
		return Stat{}, false, nil
	}
	return *got.stat, true, nil
}

// Children returns the names of a node's children, in no order, without the node's own.
func (c *Client) Children(ctx context.Context, name string) ([]string, error) {
	got, err := call(ctx, c, func(b backend) (got content, err error) {
		got.names, got.stat, err = b.Children(c.path(name))
		return got, err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list node %q: %w", c.path(name), err)
	}
	return got.names, nil
}

// WatchChildren is Children, and tells of the next child that comes or goes.
func (c *Client) WatchChildren(ctx context.Context, name string) ([]string, <-chan Event, error) {
	got, err := call(ctx, c, func(b backend) (got content, err error) {
		got.names, got.stat, got.watch, err = b.ChildrenW(c.path(name))
		return got, err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot list node %q: %w", c.path(name), err)
	}
	return got.names, got.watch, nil
}

// Sync waits until this client's server has all that the ensemble had when it was called: what is read next is not older.
func (c *Client) Sync(ctx context.Context) error {
	_, err := call(ctx, c, func(b backend) (string, error) { return b.Sync(c.cfg.URL.Path) })
	if err != nil {
		return fmt.Errorf("cannot catch up with ZooKeeper: %w", err)
	}
	return nil
}

// Op is one part of a transaction; make it with the functions below.
type Op struct {
	kind    opKind
	name    string
	data    []byte
	version int32
	access  Access
}

type opKind int

const (
	opCreate opKind = iota
	opSet
	opDelete
	opCheck
)

// CreateOp makes a persistent node, which must not be there.
func CreateOp(name string, data []byte, access Access) Op {
	return Op{kind: opCreate, name: name, data: data, access: access}
}

// SetOp replaces the data of a node of that version, or Any.
func SetOp(name string, data []byte, version int32) Op {
	return Op{kind: opSet, name: name, data: data, version: version}
}

// DeleteOp removes a node of that version, or Any.
func DeleteOp(name string, version int32) Op { return Op{kind: opDelete, name: name, version: version} }

// CheckOp changes nothing, and makes the transaction fail unless the node has that version.
func CheckOp(name string, version int32) Op { return Op{kind: opCheck, name: name, version: version} }

// Size is about how many bytes the operation takes on the wire. A transaction must stay below MaxPacket.
func (c *Client) Size(op Op) int { return len(c.path(op.name)) + len(op.data) + 160 }

// MaxPacket is the most that ZooKeeper takes at once with its default settings, in bytes, less a margin.
const MaxPacket = 1<<20 - 4<<10

// Multi does all of the operations or none; its error is that of the first that could not be done. The versions are those of
// the nodes after a SetOp, 0 after the others.
func (c *Client) Multi(ctx context.Context, ops ...Op) ([]int32, error) {
	requests := make([]any, len(ops))
	for i, op := range ops {
		path := c.path(op.name)
		switch op.kind {
		case opCreate:
			requests[i] = &zk.CreateRequest{Path: path, Data: op.data, Acl: c.acl(op.access)}
		case opSet:
			requests[i] = &zk.SetDataRequest{Path: path, Data: op.data, Version: op.version}
		case opDelete:
			requests[i] = &zk.DeleteRequest{Path: path, Version: op.version}
		case opCheck:
			requests[i] = &zk.CheckVersionRequest{Path: path, Version: op.version}
		}
	}
	answers, err := call(ctx, c, func(b backend) ([]zk.MultiResponse, error) { return b.Multi(requests...) })
	if err != nil {
		return nil, fmt.Errorf("cannot write to ZooKeeper: %w", err)
	}
	versions := make([]int32, len(ops))
	for i, a := range answers {
		if i < len(versions) && a.Stat != nil {
			versions[i] = a.Stat.Version
		}
	}
	return versions, nil
}
