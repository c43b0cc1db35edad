package node

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"starling/cmd/internal/flags"
	"starling/gossip"
)

// meshFlags are the settings of every member of the mesh.
type meshFlags struct {
	port     flags.Port
	join     flags.List
	discover bool
	profile  string
	keyFile  flags.Path
}

func (m *meshFlags) register(s *flags.Set) {
	m.port, m.discover, m.profile = gossip.DefaultPort, true, gossip.ProfileLAN
	s.Var(&m.port, "mesh-port", "the `port` of the mesh, TCP and UDP")
	s.Var(&m.join, "join", "`host[:port],...` of nodes of the mesh; one that answers is enough, and they are tried for ever")
	s.BoolVar(&m.discover, "discover", m.discover, "find other nodes on the local network by mDNS")
	s.StringVar(&m.profile, "mesh-profile", m.profile, "what the links are like: `lan`, wan or local")
	s.Var(&m.keyFile, "cluster-key-file", "a `file` with the cluster's key, made by starling keygen (none: nothing is encrypted)")
}

// key reads the cluster's key; nil where none was given.
func (m *meshFlags) key() ([]byte, error) {
	if m.keyFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(string(m.keyFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read --cluster-key-file: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(key) != keyLength {
		return nil, fmt.Errorf("%s does not hold a cluster key; make one with starling keygen", m.keyFile)
	}
	return key, nil
}

// keyLength is that of the cluster's key, in bytes: 256 bits.
const keyLength = 32

func newKey() string {
	key := make([]byte, keyLength)
	rand.Read(key) // never fails (crypto/rand, Go 1.24)
	return base64.StdEncoding.EncodeToString(key)
}

// mesh adds the role's membership in the mesh. The folder remembers peers and the generation; it differs for each member
// in one process.
func (r *role) mesh(m *meshFlags, id, dir string) (*gossip.Mesh, []byte, error) {
	key, err := m.key()
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
	c.Join, c.Discover, c.Profile, c.Key = m.join, m.discover, m.profile, key
	c.StateDir, c.Log, c.Metrics = dir, r.log, r.metrics
	mesh, err := gossip.New(c)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot join the mesh: %w", err)
	}
	r.closers = append(r.closers, func() { mesh.Close() })
	return mesh, key, nil
}

// meshDir is where a member keeps what it remembers of the mesh.
func meshDir(dir string) string { return filepath.Join(dir, "mesh") }
