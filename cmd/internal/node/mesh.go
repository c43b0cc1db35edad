package node

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"starling/cmd/internal/clusterkey"
	"starling/cmd/internal/flags"
	"starling/gossip"
	"starling/gossip/catalog"
	"starling/master/nodeapi"
)

// meshFlags are the settings of every member of the mesh.
type meshFlags struct {
	port     flags.Port
	join     flags.List
	allow    flags.Networks
	discover bool
	profile  string
	keyFile  flags.Path
}

func (m *meshFlags) register(s *flags.Set) {
	m.port, m.discover, m.profile = gossip.DefaultPort, true, gossip.ProfileLAN
	s.Var(&m.port, "mesh-port", "the `port` of the mesh, TCP and UDP")
	s.Var(&m.join, "join", "`host[:port],...` of nodes of the mesh; one that answers is enough, and they are tried for ever")
	s.Var(&m.allow, "mesh-allow", "`network,...` that the mesh talks with, as 10.0.0.0/8 (all); what comes from elsewhere is dropped unread")
	s.BoolVar(&m.discover, "discover", m.discover, "find other nodes on the local network by mDNS")
	s.StringVar(&m.profile, "mesh-profile", m.profile, "what the links are like: `lan`, wan or local")
	s.Var(&m.keyFile, "cluster-key-file", "a `file` with the cluster's key, made by starling keygen (none: nothing is encrypted)")
}

// key reads the cluster's key; nil where none was given.
func (m *meshFlags) key(log *slog.Logger) (gossip.Secret, error) {
	if m.keyFile == "" {
		return nil, nil
	}
	key, err := clusterkey.Read("cluster-key-file", string(m.keyFile))
	if err != nil {
		return nil, err
	}
	if err := clusterkey.Private(string(m.keyFile)); err != nil {
		log.Warn("the cluster key is not safe", "err", err)
	}
	return key, nil
}

// mesh adds the role's membership in the mesh, and returns the keys of the node protocol, nil where the cluster has none. The folder
// remembers peers, the generation and a key that was rotated; it differs for each member in one process.
func (r *role) mesh(m *meshFlags, id, dir string) (*gossip.Mesh, nodeapi.Keys, error) {
	key, err := m.key(r.log)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the mesh's folder: %w", err)
	}
	c := gossip.DefaultConfig()
	c.NodeID, c.Cluster = id, r.common.cluster
	if r.place.bind != "" {
		c.BindAddr = r.place.bind
	}
	c.BindPort, c.AdvertiseAddr = int(m.port), r.place.address
	c.Allow = m.allow
	c.Join, c.Discover, c.Profile, c.Key = m.join, m.discover, m.profile, key
	c.StateDir, c.Log, c.Metrics = dir, r.log, r.metrics
	c.Bulk = catalog.MayWait
	if err := c.Validate(); err != nil {
		return nil, nil, &UsageError{err}
	}
	mesh, err := gossip.New(c)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot join the mesh: %w", err)
	}
	r.closers = append(r.closers, func() { mesh.Close() })
	if key == nil {
		return mesh, nil, nil
	}
	return mesh, mesh.Secrets, nil
}

// meshDir is where a member keeps what it remembers of the mesh.
func meshDir(dir string) string { return filepath.Join(dir, "mesh") }
