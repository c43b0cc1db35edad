package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/quota"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

var update = flag.Bool("update", false, "write the golden files anew; commit them only if every changed line can be explained")

// everything calls look with the view of a cluster in which there is at least one of all that the older endpoints show.
func everything(t *testing.T, look func(t *testing.T, v *master.View)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // with more, the race detector breaks down now and then in a bubble's timers (golang.org/issue/78156)
	synctest.Test(t, func(t *testing.T) { look(t, buildCluster(t)) })
}

func buildCluster(t *testing.T) *master.View {
	t.Helper()
	c := mastertest.Start(t, nil, func(cfg *master.Config) {
		cfg.Cluster, cfg.Region, cfg.Zone = "edge", "r1", "z1"
		cfg.Flags = map[string]string{"port": "5050", "external_log_file": "/var/log/master.log"}
		cfg.Weights = map[string]float64{"web": 2}
		cfg.UnreachableAfter, cfg.FilterGPUResources = time.Second, false
	})
	one := c.AddAgent(1, "cpus:4;gpus:1;mem:4096;disk:10000;ports:[31000-31004,31006-32000];bugs:{a,b};cpus(db):2;mem(db):512")
	one.SetNode(func(n *catalog.Node) {
		n.Region, n.Zone, n.Capabilities = "r1", "z2", []string{"AGENT_DRAINING"}
		n.Attributes = []*catalog.Attribute{
			{Name: "rack", Kind: catalog.Kind_TEXT, Text: "r-7"},
			{Name: "weight", Kind: catalog.Kind_SCALAR, Milli: 1500},
			{Name: "vlans", Kind: catalog.Kind_RANGES, Ranges: []*catalog.Range{{Begin: 1, End: 3}, {Begin: 5, End: 5}}},
			{Name: "tags", Kind: catalog.Kind_SET, Items: []string{"x", "y"}},
		}
	})
	two := c.AddAgent(2, "cpus:1;mem:512")
	three := c.AddAgent(3, "cpus:1;mem:512")
	three.SetNode(func(n *catalog.Node) {
		n.Region, n.Zone = "r1", "z3"
		n.Attributes = []*catalog.Attribute{{Name: "rack", Kind: catalog.Kind_TEXT, Text: "r-8"}}
	})
	synctest.Wait()
	c.Mesh.SetLiveness(time.Now(), three.ID, record.Left) // remembered, and not there
	synctest.Wait()
	c.Elect()
	synctest.Wait()

	info := mastertest.Info("front", []string{"web"}, mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_PARTITION_AWARE)
	info.Principal, info.Hostname, info.WebuiUrl = proto.String("ops"), proto.String("h1"), proto.String("http://h1/")
	info.FailoverTimeout, info.Checkpoint = proto.Float64(604800), proto.Bool(true)
	info.Labels = labels("owner", "<ops>")
	front := mastertest.Open(t, c.Master, &scheduler.Call_Subscribe{FrameworkInfo: info, OfferConstraints: onRack("r-7", "r-8", "")})
	front.ID = front.Expect(scheduler.Event_SUBSCRIBED).GetSubscribed().GetFrameworkId().GetValue()
	offers := make(map[string]*mesos.Offer)
	for len(offers) < 2 {
		for _, o := range front.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers() {
			offers[o.GetAgentId().GetValue()] = o
		}
	}
	front.Launch(offers[two.ID], 600, mastertest.Task("away", "cpus:0.5;mem:64"))
	await(front, "away", mesos.TaskState_TASK_RUNNING)
	accept(front, offers[one.ID])
	for range 4 {
		await(front, "", mesos.TaskState_TASK_RUNNING)
	}
	must(t, one.Finish(t.Context(), front.ID, "done", mesos.TaskState_TASK_FINISHED))
	await(front, "done", mesos.TaskState_TASK_FINISHED)
	must(t, one.Update(t.Context(), front.ID, "plain", mesos.TaskState_TASK_RUNNING, func(s *mesos.TaskStatus) {
		s.Healthy, s.Labels = proto.Bool(true), labels("seen", "yes")
		s.ContainerStatus = containerStatus()
	}))
	await(front, "plain", mesos.TaskState_TASK_RUNNING)
	c.Mesh.SetLiveness(time.Now(), two.ID, record.Dead)
	await(front, "away", mesos.TaskState_TASK_UNREACHABLE)
	stream := front.Stream
	again := mastertest.Open(t, c.Master, &scheduler.Call_Subscribe{FrameworkInfo: front.Again(), OfferConstraints: onRack("r-7")})
	stream.Close()
	again.Expect(scheduler.Event_SUBSCRIBED)
	again.Expect(scheduler.Event_OFFERS) // and it keeps them
	must(t, one.Restart())
	synctest.Wait()

	db := mastertest.Subscribe(t, c.Master, mastertest.Info("db", []string{"db"}))
	db.Launch(db.ExpectOffer(), 600, mastertest.Task("old", "cpus(db):1;mem(db):64"))
	db.ExpectUpdate("old", mesos.TaskState_TASK_RUNNING)
	must(t, c.Master.Teardown(t.Context(), db.ID))
	mastertest.Subscribe(t, c.Master, mastertest.Info("idle", []string{"eng/dev"}))
	four := c.AddAgent(4, "cpus:1;mem:512")
	four.SetNode(func(n *catalog.Node) { n.Capabilities = []string{"AGENT_DRAINING"} })
	synctest.Wait()
	grace := 10 * time.Second
	must(t, c.Master.DrainAgent(t.Context(), four.ID, &grace, false))
	must(t, c.Master.UpdateQuota(t.Context(), []*quota.QuotaConfig{{
		Role:       proto.String("web"),
		Guarantees: map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(1)}},
		Limits:     map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(64)}},
	}}, true))
	synctest.Wait()
	v, err := c.Master.View(t.Context())
	must(t, err)
	return v
}

// await takes events until the update of a task, or of any, comes, and acknowledges it.
func await(f *mastertest.Framework, task string, state mesos.TaskState) {
	for {
		e, err := f.Next(mastertest.Patience)
		if err != nil {
			panic(fmt.Sprintf("no %s of %q: %v", state, task, err))
		}
		s := e.GetUpdate().GetStatus()
		if s != nil && s.GetState() == state && (task == "" || s.GetTaskId().GetValue() == task) {
			f.Acknowledge(s)
			return
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func labels(key, value string) *mesos.Labels {
	return &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String(key), Value: proto.String(value)}}}
}

// onRack asks for agents whose attribute "rack" is one of the values; an empty value stands for its absence.
func onRack(values ...string) *scheduler.OfferConstraints {
	role := &scheduler.OfferConstraints_RoleConstraints{}
	for _, v := range values {
		one := &scheduler.AttributeConstraint{
			Selector:  &scheduler.AttributeConstraint_Selector{Selector: &scheduler.AttributeConstraint_Selector_AttributeName{AttributeName: "rack"}},
			Predicate: &scheduler.AttributeConstraint_Predicate{},
		}
		if v == "" {
			one.Predicate.Predicate = &scheduler.AttributeConstraint_Predicate_NotExists_{NotExists: &scheduler.AttributeConstraint_Predicate_NotExists{}}
		} else {
			one.Predicate.Predicate = &scheduler.AttributeConstraint_Predicate_TextEquals_{
				TextEquals: &scheduler.AttributeConstraint_Predicate_TextEquals{Value: proto.String(v)},
			}
		}
		role.Groups = append(role.Groups, &scheduler.OfferConstraints_RoleConstraints_Group{AttributeConstraints: []*scheduler.AttributeConstraint{one}})
	}
	return &scheduler.OfferConstraints{RoleConstraints: map[string]*scheduler.OfferConstraints_RoleConstraints{"web": role}}
}

// accept launches a task with all that a task can have, one with an executor of its own, a group, and one that is to end.
func accept(f *mastertest.Framework, offer *mesos.Offer) {
	plain := mastertest.Task("plain", "cpus:1;mem:64;ports:[31000-31001]")
	plain.AgentId, plain.Labels = offer.GetAgentId(), labels("k", "v")
	plain.Command.User = proto.String("nobody")
	plain.Limits = map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(2)}, "mem": {Value: proto.Float64(128)}}
	plain.Discovery = &mesos.DiscoveryInfo{
		Visibility: mesos.DiscoveryInfo_CLUSTER.Enum(), Name: proto.String("plain"),
		Ports: &mesos.Ports{Ports: []*mesos.Port{{Number: proto.Uint32(31000), Name: proto.String("http"), Protocol: proto.String("tcp")}}},
	}
	plain.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
	plain.HealthCheck = &mesos.HealthCheck{
		Type: mesos.HealthCheck_COMMAND.Enum(), Command: &mesos.CommandInfo{Value: proto.String("true")},
	}
	own := mastertest.Task("own", "cpus:0.5;mem:32")
	own.AgentId, own.Command = offer.GetAgentId(), nil
	own.Executor = &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: proto.String("e1")}, Type: mesos.ExecutorInfo_CUSTOM.Enum(), Name: proto.String("runner"),
		FrameworkId: &mesos.FrameworkID{Value: proto.String(f.ID)}, Labels: labels("e", "1"), Resources: amounts("cpus:0.1;mem:32"),
		Command: &mesos.CommandInfo{
			Value: proto.String("./run"), Arguments: []string{"run", "-v"},
			Environment: &mesos.Environment{Variables: []*mesos.Environment_Variable{{Name: proto.String("A"), Value: proto.String("1")}}},
			Uris:        []*mesos.CommandInfo_URI{{Value: proto.String("http://h1/run"), Executable: proto.Bool(true)}},
		},
	}
	member := mastertest.Task("member", "cpus:0.5;mem:32")
	member.AgentId = offer.GetAgentId()
	done := mastertest.Task("done", "cpus:0.1;mem:32")
	done.AgentId = offer.GetAgentId()
	f.Call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offer.GetId()},
		Operations: []*mesos.Offer_Operation{
			{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{plain, own, done}}},
			{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
				Executor: &mesos.ExecutorInfo{
					ExecutorId: &mesos.ExecutorID{Value: proto.String("pod")}, Type: mesos.ExecutorInfo_DEFAULT.Enum(),
					FrameworkId: &mesos.FrameworkID{Value: proto.String(f.ID)}, Resources: amounts("cpus:0.1;mem:32;disk:10"),
				},
				TaskGroup: &mesos.TaskGroupInfo{Tasks: []*mesos.TaskInfo{member}},
			}},
		},
		Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
	}})
}

func amounts(text string) []*mesos.Resource {
	r, err := resources.Parse(text, resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return r.ProtoPreRefinement()
}

func containerStatus() *mesos.ContainerStatus {
	return &mesos.ContainerStatus{
		ContainerId: &mesos.ContainerID{
			Value: proto.String("5c1f4f2e-0000-4000-8000-000000000001"), Parent: &mesos.ContainerID{Value: proto.String("5c1f4f2e-0000-4000-8000-000000000002")},
		},
		CgroupInfo:  &mesos.CgroupInfo{NetCls: &mesos.CgroupInfo_NetCls{Classid: proto.Uint32(7)}},
		ExecutorPid: proto.Uint32(42),
		NetworkInfos: []*mesos.NetworkInfo{{
			Name: proto.String("net"), Groups: []string{"g"}, Labels: labels("n", "1"),
			IpAddresses:  []*mesos.NetworkInfo_IPAddress{{Protocol: mesos.NetworkInfo_IPv4.Enum(), IpAddress: proto.String("10.0.0.11")}},
			PortMappings: []*mesos.NetworkInfo_PortMapping{{HostPort: proto.Uint32(31000), ContainerPort: proto.Uint32(80), Protocol: proto.String("tcp")}},
		}},
	}
}

// What differs from run to run is made the same: random ids, times, numbers of offers.
var (
	randomID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	times    = regexp.MustCompile(`\b9466848\d\d(\.\d+)?`)
	offerID  = regexp.MustCompile(`-O\d+"`)
)

func steady(b []byte) []byte {
	b = randomID.ReplaceAllFunc(b, func(id []byte) []byte {
		if string(id) == mastertest.MasterID || bytes.HasPrefix(id, []byte("5c1f4f2e")) {
			return id
		}
		return []byte("00000000-0000-0000-0000-000000000000")
	})
	b = times.ReplaceAllFunc(b, func(at []byte) []byte {
		if bytes.ContainsRune(at, '.') {
			return []byte("946684800.0")
		}
		return []byte("946684800")
	})
	return offerID.ReplaceAll(b, []byte(`-O1"`))
}

var endpoints = map[string]func(*jsonWriter, *master.View){
	"state": writeState, "state-summary": writeSummary, "roles": writeRoles,
	"flags":      func(w *jsonWriter, v *master.View) { writeFlags(w, v.Flags) },
	"frameworks": func(w *jsonWriter, v *master.View) { writeFrameworkLists(w, v, "") },
	"slaves":     func(w *jsonWriter, v *master.View) { writeSlaves(w, v, "") },
	"tasks":      func(w *jsonWriter, v *master.View) { taskQuery{limit: 100}.write(w, v) },
}

func encode(t *testing.T, v *master.View, write func(*jsonWriter, *master.View)) []byte {
	t.Helper()
	w := newJSON()
	w.object(func() { write(w, v) })
	must(t, w.err)
	return w.b
}

// Each older endpoint shows one and the same cluster, to the byte, in the order of the reference.
func TestGolden(t *testing.T) {
	everything(t, func(t *testing.T, v *master.View) {
		for name, write := range endpoints {
			var got bytes.Buffer
			must(t, json.Indent(&got, steady(encode(t, v, write)), "", " "))
			got.WriteByte('\n')
			path := filepath.Join("testdata", name+".json")
			if *update {
				must(t, os.MkdirAll("testdata", 0o755))
				must(t, os.WriteFile(path, got.Bytes(), 0o644))
				continue
			}
			want, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s differs from %s:\n%s", name, path, firstDifference(got.String(), string(want)))
			}
		}
	})
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d: got %s, want %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(a), len(b))
}

// members are the tables of the specification, mesos-http-endpoints.md: the members that an object must have, and behind a
// question mark those that it may have.
var members = map[string]string{
	"state": "version build_date build_time build_user start_time ?elected_time ?git_sha ?git_branch ?git_tag starling_version " +
		"id pid hostname capabilities activated_slaves deactivated_slaves unreachable_slaves ?domain ?leader ?leader_info ?cluster " +
		"?log_dir ?external_log_file flags slaves recovered_slaves frameworks completed_frameworks orphan_tasks unregistered_frameworks",
	"leader_info": "id pid port hostname ?domain",
	"slave": "id hostname port attributes pid ?domain registered_time ?reregistered_time resources used_resources offered_resources " +
		"reserved_resources unreserved_resources active deactivated version capabilities ?drain_info ?estimated_drain_start_time_seconds",
	"slave_full":      "reserved_resources_full unreserved_resources_full used_resources_full offered_resources_full",
	"recovered_slave": "id hostname port attributes ?domain",
	"framework": "id name used_resources offered_resources capabilities hostname webui_url active connected recovered user failover_timeout " +
		"checkpoint registered_time unregistered_time ?reregistered_time ?principal resources ?role ?roles tasks unreachable_tasks " +
		"completed_tasks offers executors ?labels offer_constraints",
	"framework_summary": "id name used_resources offered_resources capabilities hostname webui_url active connected recovered slave_ids",
	"counts": "TASK_STAGING TASK_STARTING TASK_RUNNING TASK_KILLING TASK_FINISHED TASK_KILLED TASK_FAILED TASK_LOST TASK_ERROR " +
		"TASK_UNREACHABLE",
	"task": "id name framework_id executor_id slave_id state resources ?limits role statuses ?user ?labels ?discovery ?container " +
		"?health_check",
	"status":           "state timestamp ?labels ?container_status ?healthy",
	"container_status": "?container_id ?network_infos ?cgroup_info",
	"network_info":     "?groups ?labels ?ip_addresses ?name ?port_mappings",
	"executor":         "executor_id name framework_id command resources ?role ?labels ?type slave_id",
	"command":          "?shell ?value argv ?environment uris",
	"uri":              "value executable",
	"offer":            "id framework_id allocation_info slave_id resources",
	"role":             "name weight quota resources allocated offered reserved frameworks",
	"quota":            "role guarantee limit consumed",
	"label":            "key ?value",
	"summary":          "state-summary",
}

// notShown are the optional members that no cluster of these tests has.
var notShown = []string{"state.git_sha", "state.git_branch", "state.git_tag", "state.log_dir"}

// checker compares objects with the tables, and notes which optional members it has seen.
type checker struct {
	t    *testing.T
	seen map[string]bool
}

func (c checker) object(path string, v any, kinds ...string) map[string]any {
	c.t.Helper()
	o, ok := v.(map[string]any)
	if !ok {
		c.t.Errorf("%s: got %T, want an object", path, v)
		return nil
	}
	known := make(map[string]bool)
	for _, kind := range kinds {
		for name := range strings.FieldsSeq(members[kind]) {
			name, optional := strings.CutPrefix(name, "?")
			known[name] = true
			if _, there := o[name]; there {
				c.seen[kind+"."+name] = true
			} else if !optional {
				c.t.Errorf("%s lacks %q", path, name)
			}
		}
	}
	for name := range o {
		if !known[name] {
			c.t.Errorf("%s has %q, which the specification does not know", path, name)
		}
	}
	return o
}

func (c checker) list(path string, v any, each func(path string, v any)) {
	c.t.Helper()
	l, ok := v.([]any)
	if !ok {
		c.t.Errorf("%s: got %T, want an array", path, v)
	}
	for i, e := range l {
		each(fmt.Sprintf("%s[%d]", path, i), e)
	}
}

func (c checker) resources(path string, v any) {
	c.t.Helper()
	o, _ := v.(map[string]any)
	for _, name := range []string{"cpus", "gpus", "mem", "disk"} {
		if _, ok := o[name].(float64); !ok {
			c.t.Errorf("%s: %s is %v, want a number", path, name, o[name])
		}
	}
	for name, value := range o {
		if s, ok := value.(string); ok && !regexp.MustCompile(`^(\[\d+-\d+(, \d+-\d+)*\]|\{\w+(, \w+)*\})$`).MatchString(s) {
			c.t.Errorf("%s: %s is %q", path, name, s)
		}
	}
}

func (c checker) labels(path string, v any) {
	if v != nil {
		c.list(path, v, func(path string, v any) { c.object(path, v, "label") })
	}
}

func (c checker) task(path string, v any) {
	o := c.object(path, v, "task")
	c.resources(path+".resources", o["resources"])
	c.labels(path+".labels", o["labels"])
	c.list(path+".statuses", o["statuses"], func(path string, v any) {
		s := c.object(path, v, "status")
		c.labels(path+".labels", s["labels"])
		if cs := s["container_status"]; cs != nil {
			status := c.object(path+".container_status", cs, "container_status")
			if infos := status["network_infos"]; infos != nil {
				c.list(path+".network_infos", infos, func(path string, v any) {
					n := c.object(path, v, "network_info")
					c.labels(path+".labels", n["labels"])
				})
			}
		}
	})
}

func (c checker) framework(path string, v any) {
	o := c.object(path, v, "framework")
	for _, name := range []string{"used_resources", "offered_resources", "resources"} {
		c.resources(path+"."+name, o[name])
	}
	for _, name := range []string{"tasks", "unreachable_tasks", "completed_tasks"} {
		c.list(path+"."+name, o[name], c.task)
	}
	c.list(path+".offers", o["offers"], func(path string, v any) { c.resources(path, c.object(path, v, "offer")["resources"]) })
	c.list(path+".executors", o["executors"], func(path string, v any) {
		e := c.object(path, v, "executor")
		c.list(path, c.object(path+".command", e["command"], "command")["uris"], func(path string, v any) { c.object(path, v, "uri") })
	})
	c.labels(path+".labels", o["labels"])
	if (o["role"] == nil) == (o["roles"] == nil) {
		c.t.Errorf("%s: want either role or roles", path)
	}
}

func (c checker) slave(kinds ...string) func(path string, v any) {
	return func(path string, v any) {
		o := c.object(path, v, append([]string{"slave"}, kinds...)...)
		for _, name := range []string{"resources", "used_resources", "offered_resources", "unreserved_resources"} {
			c.resources(path+"."+name, o[name])
		}
	}
}

// Every object has the members that the specification lists, and no others; what is optional appears at least once.
func TestMembers(t *testing.T) {
	everything(t, func(t *testing.T, v *master.View) {
		c := checker{t, make(map[string]bool)}
		shown := func(name string) map[string]any {
			var o map[string]any
			must(t, json.Unmarshal(encode(t, v, endpoints[name]), &o))
			return o
		}
		extend := func(kind, more string) { members[kind] = more }
		extend("slaves", "slaves recovered_slaves")
		extend("frameworks", "frameworks completed_frameworks unregistered_frameworks")
		extend("tasks", "tasks")
		extend("roles", "roles")
		extend("state-summary", "hostname ?cluster slaves frameworks")
		extend("framework_ids", "framework_ids")

		state := c.object("state", shown("state"), "state")
		c.object("leader_info", state["leader_info"], "leader_info")
		c.list("slaves", state["slaves"], c.slave())
		c.list("recovered_slaves", state["recovered_slaves"], func(path string, v any) { c.object(path, v, "recovered_slave") })
		c.list("frameworks", state["frameworks"], c.framework)
		c.list("completed_frameworks", state["completed_frameworks"], c.framework)
		summary := c.object("state-summary", shown("state-summary"), "state-summary")
		c.list("slaves", summary["slaves"], c.slave("counts", "framework_ids"))
		c.list("frameworks", summary["frameworks"], func(path string, v any) { c.object(path, v, "framework_summary", "counts") })
		c.list("slaves", c.object("slaves", shown("slaves"), "slaves")["slaves"], c.slave("slave_full"))
		c.list("frameworks", c.object("frameworks", shown("frameworks"), "frameworks")["frameworks"], c.framework)
		c.list("tasks", c.object("tasks", shown("tasks"), "tasks")["tasks"], c.task)
		c.list("roles", c.object("roles", shown("roles"), "roles")["roles"], func(path string, v any) {
			c.object(path+".quota", c.object(path, v, "role")["quota"], "quota")
		})
		for _, kind := range slices.Sorted(maps.Keys(members)) {
			for name := range strings.FieldsSeq(members[kind]) {
				if name, optional := strings.CutPrefix(name, "?"); optional && !c.seen[kind+"."+name] && !slices.Contains(notShown, kind+"."+name) {
					t.Errorf("no %s has %q: the cluster of this test lacks something", kind, name)
				}
			}
		}
	})
}
