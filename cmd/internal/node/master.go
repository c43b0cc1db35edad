package node

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	gossipapi "starling/gossip/api"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	masterapi "starling/master/api"
	"starling/master/election"
	"starling/master/mesos/server"
	"starling/master/nodeapi"
	"starling/master/store/boltstore"

	"google.golang.org/protobuf/proto"
)

const masterPort = 5050

// masterFlags are the settings of a master.
type masterFlags struct {
	mesh            meshFlags
	port            flags.Port
	zk              string
	roles           flags.List
	weights         flags.List
	offerTimeout    flags.Duration
	rootSubmissions bool
	filterGPUs      bool
	region, zone    string
	keepFrameworks  int
	keepTasks       int
	keepUnreachable int
}

func (m *masterFlags) register(s *flags.Set) {
	d := master.DefaultConfig()
	m.port = masterPort
	s.StringVar(&m.zk, "zk", "", "where masters are elected, as `zk://host:port,.../path`; not built in yet: leave it out, and this master leads alone")
	s.Var(&m.roles, "roles", "the only `roles` that frameworks may use, besides *")
	s.Var(&m.weights, "weights", "`role=weight,...`: a role of weight 2 gets twice as much as one of 1")
	s.Var(&m.offerTimeout, "offer-timeout", "how long a framework may sit on an offer (0s: for ever)")
	s.BoolVar(&m.rootSubmissions, "root-submissions", d.RootSubmissions, "let frameworks run as the user root")
	s.BoolVar(&m.filterGPUs, "filter-gpu-resources", d.FilterGPUResources, "keep agents with GPUs for frameworks that know about them")
	s.IntVar(&m.keepFrameworks, "max-completed-frameworks", d.MaxCompletedFrameworks, "how `many` ended frameworks are remembered")
	s.IntVar(&m.keepTasks, "max-completed-tasks-per-framework", d.MaxCompletedTasks, "how `many` ended tasks of each are remembered")
	s.IntVar(&m.keepUnreachable, "max-unreachable-tasks-per-framework", d.MaxUnreachableTasks, "how `many` unreachable tasks of each are remembered")
}

// Master runs a master.
func Master(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling master", "STARLING_", "MESOS_")
	var c common
	var m masterFlags
	c.stderr = io.Err
	c.register(set, "master")
	m.mesh.register(set)
	m.register(set)
	set.Var(&m.port, "port", "the `port` of the HTTP API")
	set.StringVar(&m.region, "region", "", "the `name` of the region this node stands in")
	set.StringVar(&m.zone, "zone", "", "the `name` of the zone this node stands in")
	set.Ignore(ignoredByBoth...)
	set.Ignore(ignoredByMaster...)
	if err := parse(io, set, "A master: joins the mesh, serves frameworks.", args, environ); err != nil {
		return err
	}
	if m.zk != "" {
		return usagef("--zk: election in ZooKeeper is not built in yet; leave it out, and this master leads alone")
	}
	r, err := newRole("master", set, &c)
	if err != nil {
		return err
	}
	if err := r.master(&m, false); err != nil {
		r.abandon()
		return err
	}
	return r.run(ctx, io)
}

// master adds a master with its membership in the mesh and its store.
func (r *role) master(m *masterFlags, portAside bool) error {
	id, err := identity(r.place.dir, "master-id", newMasterID)
	if err != nil {
		return err
	}
	c := master.DefaultConfig()
	if c.Weights, err = parseWeights(m.weights); err != nil {
		return &UsageError{fmt.Errorf("--weights: %w", err)}
	}
	l, port, err := r.listen("HTTP", int(m.port), portAside)
	if err != nil {
		return err
	}
	documents, err := boltstore.Open(filepath.Join(r.place.dir, "master.db"))
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() { documents.Close() })
	mesh, keys, err := r.mesh(&m.mesh, id, meshDir(r.place.dir))
	if err != nil {
		return err
	}
	info, err := proto.Marshal(&catalog.Node{
		Roles: []string{catalog.RoleMaster}, Hostname: r.place.hostname, Address: r.place.address, Port: uint32(port),
		Region: m.region, Zone: m.zone, Version: Version(), Started: time.Now().UnixNano(),
	})
	if err != nil {
		return err
	}
	mesh.Set(record.Assignment{Key: catalog.KeyNode, Value: info})

	c.ID, c.Hostname, c.Address, c.Port = id, r.place.hostname, r.place.address, port
	c.Cluster, c.Version, c.Region, c.Zone = r.common.cluster, Version(), m.region, m.zone
	c.Flags, c.Mesh, c.Store = shownFlags(r.set), mesh, documents
	// What the agents refused counts as heard too: a master whose store was lost climbs above it in one step.
	var daemon *master.Master
	c.Contender = election.NewAlone(documents, func() uint64 { return daemon.EpochFloor() })
	c.Client = nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(keys, nil)})
	c.Roles, c.OfferTimeout, c.RootSubmissions, c.FilterGPUResources = m.roles, m.offerTimeout.Std(), m.rootSubmissions, m.filterGPUs
	c.MaxCompletedFrameworks, c.MaxCompletedTasks, c.MaxUnreachableTasks = m.keepFrameworks, m.keepTasks, m.keepUnreachable
	c.Log = r.log
	if daemon, err = master.New(c); err != nil {
		return err
	}
	r.metrics.MustRegister(master.NewCollector(daemon))
	api := masterapi.New(masterapi.Config{
		Master: daemon, Verifier: nodeapi.NewVerifier(keys, nil), Gatherer: r.metrics, Log: r.log, Mount: gossipapi.Mount(mesh),
	})
	r.add("store", func(ctx context.Context) error { <-ctx.Done(); return documents.Close() })
	r.add("gossip", mesh.Run)
	r.add("master", daemon.Run)
	r.add("master api", func(ctx context.Context) error { return server.Serve(ctx, api, l) })
	r.ready = append(r.ready, func() bool { return daemon.Standing().Leading })
	r.httpAddress = net.JoinHostPort(r.place.address, strconv.Itoa(port))
	return nil
}

func parseWeights(list []string) (map[string]float64, error) {
	weights := map[string]float64{}
	for _, item := range list {
		role, text, ok := strings.Cut(item, "=")
		w, err := strconv.ParseFloat(text, 64)
		if !ok || role == "" || err != nil || !(w > 0) {
			return nil, fmt.Errorf("%q is not role=weight with a weight above 0", item)
		}
		weights[role] = w
	}
	return weights, nil
}
