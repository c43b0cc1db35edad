package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/master"
	"starling/master/election"
	"starling/master/election/zkelection"
	"starling/master/store"
	"starling/master/store/boltstore"
	"starling/master/store/zkstore"
	"starling/master/zookeeper"
)

// zkFlag is a place in ZooKeeper. It is shown without its password.
type zkFlag struct{ URL zookeeper.URL }

// String returns the URL without credentials; empty where there is none.
func (z *zkFlag) String() string {
	if !z.given() {
		return ""
	}
	return z.URL.String()
}

// Set parses a URL.
func (z *zkFlag) Set(s string) error {
	u, err := zookeeper.Parse(s)
	if err == nil {
		z.URL = u
	}
	return err
}

// Secret keeps the URL out of what is said about wrong ones.
func (z *zkFlag) Secret() bool { return true }

func (z *zkFlag) given() bool { return len(z.URL.Hosts) > 0 }

// mastersFlag is where masters are: the addresses of some, or the place where they are elected.
type mastersFlag struct {
	addresses []string // host:port
	zk        zkFlag
}

// String returns what was given, without credentials.
func (m *mastersFlag) String() string {
	if m.zk.given() {
		return m.zk.String()
	}
	return strings.Join(m.addresses, ",")
}

// Set parses either form. A list is also taken with the scheme before each address.
func (m *mastersFlag) Set(s string) error {
	if strings.HasPrefix(s, "zk://") {
		m.addresses = nil
		return m.zk.Set(s)
	}
	var items flags.List
	if err := items.Set(s); err != nil {
		return err
	}
	var all []string
	for _, item := range items {
		address, err := flags.HostPort(item, strconv.Itoa(masterPort))
		if err != nil {
			return err
		}
		all = append(all, address)
	}
	if len(all) == 0 {
		return errors.New("no master is named")
	}
	m.addresses, m.zk = all, zkFlag{}
	return nil
}

// Secret keeps a password out of what is said about wrong values.
func (m *mastersFlag) Secret() bool { return true }

// office is how a master comes to lead, and where it keeps its documents.
type office struct {
	contender election.Contender
	detector  election.Detector // nil for a master that is alone
	documents store.Store
	// ready tells whether a master with this office is ready.
	ready func(*master.Master) bool
}

// alone is the office of a master that leads by itself; its documents are in a file of its own.
func (r *role) alone(heard func() uint64) (*office, error) {
	documents, err := boltstore.Open(r.documentsFile())
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() { documents.Close() })
	r.add("store", func(ctx context.Context) error { <-ctx.Done(); return documents.Close() })
	contender := election.NewAlone(documents, heard)
	contender.Log = r.log
	return &office{
		contender: contender, documents: documents,
		ready: func(m *master.Master) bool { return m.Standing().Leading },
	}, nil
}

// documentsFile is where a master that is alone keeps its documents.
func (r *role) documentsFile() string { return filepath.Join(r.place.dir, "master.db") }

// elected is the office of a master among several. It is ready also as a standby, and while ZooKeeper is away.
func (r *role) elected(zk *zkFlag, session time.Duration, heard func() uint64) (*office, error) {
	if err := r.lock(lockPatience); err != nil {
		return nil, err
	}
	client, err := r.zooKeeper(zk, session)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(r.documentsFile()); err == nil {
		r.log.Warn("what this master kept while it was alone is not taken along to ZooKeeper", "path", r.documentsFile())
	}
	documents := zkstore.New(client)
	r.add("store", func(ctx context.Context) error { <-ctx.Done(); return documents.Close() })
	return &office{
		contender: zkelection.New(zkelection.Config{Client: client, Store: documents, Heard: heard, Log: r.log}),
		detector:  zkelection.NewDetector(client, r.log),
		documents: documents,
		ready:     (*master.Master).Ready,
	}, nil
}

// zooKeeper adds a session with ZooKeeper.
func (r *role) zooKeeper(zk *zkFlag, session time.Duration) (*zookeeper.Client, error) {
	client, err := zookeeper.New(zookeeper.Config{URL: zk.URL, SessionTimeout: session, Log: r.log})
	if err != nil {
		return nil, err
	}
	r.add("zookeeper", client.Run)
	return client, nil
}
