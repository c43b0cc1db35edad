//go:build linux

package dns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/deploy/hosts"
	"starling/gossip"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
)

const (
	agents    = 10
	instances = 10
	domain    = "mesos"
	framework = "b3f0a1c2-0001"
)

// cluster is a mesh of agents that start nothing and tell of tasks, as Marathon's are: apps of ten instances, each on an agent of
// its own, in groups of ten apps.
type cluster struct {
	tasks  int
	agents []*gossip.Mesh
	seed   string
}

// newCluster runs the agents until the end of the test.
func newCluster(t *testing.T, tasks int) *cluster {
	c := &cluster{tasks: tasks}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range agents {
		config := gossip.DefaultConfig()
		config.NodeID = fmt.Sprintf("%s-S%d", framework, i)
		config.Cluster, config.BindAddr, config.BindPort = "bench", "127.0.0.1", 0
		config.Profile, config.Log = gossip.ProfileLocal, slog.New(slog.DiscardHandler)
		// The mesh is not what is measured: it must bring what the test wants brought.
		config.GossipRate, config.RepairRate = 1<<20, 16<<20
		if c.seed != "" {
			config.Join = []string{c.seed}
		}
		mesh, err := gossip.New(config)
		if err != nil {
			t.Fatal(err)
		}
		host, port := mesh.Address()
		c.seed = host + ":" + strconv.Itoa(port)
		c.agents = append(c.agents, mesh)
		changes := []record.Assignment{{Key: catalog.KeyNode, Value: encode(t, &catalog.Node{
			Roles: []string{catalog.RoleAgent}, Hostname: fmt.Sprintf("edge-%d", i), Address: fmt.Sprintf("10.1.0.%d", i+1), Port: 5051,
			AgentId: config.NodeID,
		})}}
		for n := range tasks / agents {
			changes = append(changes, c.change(t, i, n, true))
		}
		mesh.Set(changes...)
		wg.Go(func() {
			if err := mesh.Run(ctx); err != nil {
				t.Errorf("mesh: %v", err)
			}
			mesh.Close()
		})
	}
	return c
}

func encode(t testing.TB, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// app is the name that Marathon gives to the tasks of the n-th app.
func app(n int) string { return fmt.Sprintf("app-%03d.team-%02d", n, n/10) }

// change is what an agent tells of its instance of the n-th app, which runs or has ended.
func (c *cluster) change(t testing.TB, agent, n int, runs bool) record.Assignment {
	task := summary(agent, n)
	if !runs {
		task.State = int32(mesos.TaskState_TASK_FINISHED)
	}
	return record.Assignment{Key: catalog.TaskKey(framework, task.GetTaskId()), Value: encode(t, task)}
}

func summary(agent, n int) *catalog.Task {
	port := uint64(31000 + n%1000)
	group, name := fmt.Sprintf("team-%02d", n/10), fmt.Sprintf("app-%03d", n)
	return &catalog.Task{
		TaskId: fmt.Sprintf("%s_%s.instance-5f1c09a2-%04d.%d", group, name, n, agent), FrameworkId: framework, FrameworkName: "marathon",
		Name: app(n), State: int32(mesos.TaskState_TASK_RUNNING),
		Addresses: []string{fmt.Sprintf("10.2%02d.%d.%d", agent, n/250, 1+n%250)},
		Resources: []*catalog.Resource{
			{Name: "cpus", Milli: 100},
			{Name: "ports", Kind: catalog.Kind_RANGES, Ranges: []*catalog.Range{{Begin: port, End: port}}},
		},
		Discovery: &catalog.Discovery{Name: app(n), Ports: []*catalog.Port{{Number: 8080, Name: "http", Protocol: "tcp"}}},
		Role:      "*", Launched: 1_790_000_000_000_000_000,
	}
}

// starling runs a build of the product's DNS role as a member of the cluster, until it knows all tasks.
func (c *cluster) starling(t *testing.T, name, binary string) *server {
	s := &server{name: name, addr: netip.AddrPortFrom(loopback, uint16(hosts.FreePort(t, loopback.String())))}
	s.http = "http://" + netip.AddrPortFrom(loopback, uint16(hosts.FreePort(t, loopback.String()))).String()
	s.process = start(t, s.name, binary, "dns", "--ip=127.0.0.1", "--cluster=bench", "--mesh-profile=local", "--discover=false",
		"--join="+c.seed, "--mesh-port="+strconv.Itoa(hosts.FreePort(t, loopback.String())), "--dns-port="+strconv.Itoa(int(s.addr.Port())),
		"--dns-http-port="+s.http[strings.LastIndexByte(s.http, ':')+1:], "--work-dir="+t.TempDir())
	// It is asked for names, not for its listing, whose making would count as its memory.
	all := load{server: s.addr, questions: questionsFor("A", c.tasks), sockets: 1, window: 8, lasts: 200 * time.Millisecond, cpu: -1}
	hosts.Eventually(t, time.Minute, "the server knows all tasks", func() error {
		o, err := all.run()
		if err == nil {
			err = o.wholly()
		}
		if err == nil && int(o.answered) < len(all.questions) {
			err = fmt.Errorf("only %d answers", o.answered)
		}
		return err
	})
	return s
}

// text is the cluster's zone as other servers read it: what a server of the product's lists over HTTP, as Mesos-DNS does. That server
// is gone when the test's servers are measured.
func (c *cluster) text(t *testing.T) (zone string) {
	t.Run("zone", func(t *testing.T) {
		_, body, err := hosts.Request("GET", c.starling(t, "lister", product(t)).http+"/v1/axfr", "")
		if err != nil {
			t.Fatal(err)
		}
		var l struct {
			TTL          int
			Serial       uint32
			Mname, Rname string
			Records      map[string]map[string][]string
		}
		if err := json.Unmarshal([]byte(body), &l); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for section, names := range l.Records {
			kind := strings.TrimSuffix(section, "s") // As, AAAAs, SRVs
			for owner, values := range names {
				for _, v := range values {
					if kind == "SRV" {
						target, port, _ := strings.Cut(v, ":")
						v = "0 1 " + port + " " + target
					}
					lines = append(lines, owner+" "+kind+" "+v+"\n")
				}
			}
		}
		slices.Sort(lines)
		t.Logf("%d tasks have %d records", c.tasks, len(lines))
		zone = fmt.Sprintf("$TTL %d\n%s. SOA %s %s %d 60 600 86400 5\n%s. NS %s\n", l.TTL, domain, l.Mname, l.Rname, l.Serial, domain, l.Mname)
		if l.Records["As"][l.Mname] == nil {
			zone += l.Mname + " A 127.0.0.1\n" // a name server without an address is no zone to some
		}
		zone += strings.Join(lines, "")
	})
	if t.Failed() {
		t.FailNow()
	}
	return zone
}

// build makes the product's binary, once.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "starling")
	out, err := exec.Command("go", "build", "-trimpath", "-o", path, "starling/cmd/starling").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build the binary: %w\n%s", err, out)
	}
	return path, nil
})
