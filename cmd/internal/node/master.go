package node

import (
	"context"
	"net"
	"strconv"
	"time"

	"starling/cmd/internal/flags"
	gossipapi "starling/gossip/api"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	masterapi "starling/master/api"
	"starling/master/mesos/server"
	"starling/master/nodeapi"

	"google.golang.org/protobuf/proto"
)

// Master runs a master.
func Master(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling master", "STARLING_", "MESOS_")
	var c common
	var m masterFlags
	c.stderr = io.Err
	c.register(set, "master")
	m.mesh.register(set)
	m.register(set)
	m.registerAlone(set)
	if err := parse(io, set, "A master: joins the mesh, serves frameworks.", args, environ); err != nil {
		return err
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
	c, err := m.config(r.set)
	if err != nil {
		return &UsageError{err}
	}
	l, port, err := r.listen("HTTP", int(m.port), portAside)
	if err != nil {
		return err
	}
	told := port
	if m.advertisePort != 0 {
		told = int(m.advertisePort)
	}
	// What the agents refused counts as heard too: a master whose store was lost climbs above it in one step.
	var daemon *master.Master
	heard := func() uint64 { return daemon.EpochFloor() }
	var o *office
	if m.zk.given() {
		o, err = r.elected(&m.zk, m.zkSession.Std(), heard)
	} else {
		o, err = r.alone(heard)
	}
	if err != nil {
		return err
	}
	mesh, keys, err := r.mesh(&m.mesh, id, meshDir(r.place.dir))
	if err != nil {
		return err
	}
	info, err := proto.Marshal(&catalog.Node{
		Roles: []string{catalog.RoleMaster}, Hostname: r.place.hostname, Address: r.place.address, Port: uint32(told),
		Region: m.region, Zone: m.zone, Version: Version(), Started: time.Now().UnixNano(),
	})
	if err != nil {
		return err
	}
	mesh.Set(record.Assignment{Key: catalog.KeyNode, Value: info})

	c.ID, c.Hostname, c.Address, c.Port = id, r.place.hostname, r.place.address, told
	c.Cluster, c.Version = r.common.cluster, Version()
	c.Flags, c.Mesh = shownFlags(r.set), mesh
	c.Contender, c.Detector, c.Store = o.contender, o.detector, o.documents
	c.Client = nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(keys, nil)})
	c.Log = r.log
	if daemon, err = master.New(c); err != nil {
		return err
	}
	r.metrics.MustRegister(master.NewCollector(daemon))
	api := masterapi.New(masterapi.Config{
		Master: daemon, Verifier: nodeapi.NewVerifier(keys, nil), Gatherer: r.metrics, Log: r.log, Level: r.level,
		LogFile: string(m.logFile), Mount: gossipapi.Mount(mesh),
	})
	r.add("gossip", mesh.Run)
	r.add("master", daemon.Run)
	r.add("master api", func(ctx context.Context) error { return server.Serve(ctx, api, l) })
	r.ready = append(r.ready, func() bool { return o.ready(daemon) })
	r.httpAddress = net.JoinHostPort(r.place.address, strconv.Itoa(port))
	return nil
}
