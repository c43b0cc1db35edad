package task

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// settings accept everything, under the role web.
func settings() app.Settings {
	s := app.DefaultSettings()
	s.Secrets, s.ExternalVolumes, s.GPUResources = true, true, true
	s.DefaultRole = "web"
	return s
}

// makeApp makes an app as it stands in a tree: with service ports and versions.
func makeApp(t *testing.T, body string) *app.App {
	t.Helper()
	d, err := app.ParseApp([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.ID(app.Root)
	if err != nil {
		t.Fatal(err)
	}
	root := app.EmptyRoot()
	a, err := d.Create(id, root.RulesFor(id, settings()))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2024, 5, 4, 10, 11, 12, 345e6, time.UTC)
	root, err = app.Commit(root, root.WithApp(a), app.Change{Now: now, Settings: settings()})
	if err != nil {
		t.Fatal(err)
	}
	return root.App(id)
}

func parseResources(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func launch(t *testing.T, a *app.App, pick Pick) Launch {
	t.Helper()
	id, err := app.ParseTaskID(a.ID.Safe() + ".instance-5a0e8c51-0a01-11ef-8b3c-0242ac110002._app.1")
	if err != nil {
		t.Fatal(err)
	}
	return Launch{App: a, Task: id, AgentID: "ab12-S3", Hostname: "edge-7", Pick: pick}
}

// Each testdata/*.json holds an app; the .golden beside it the task that is made of it.
func TestBuild(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no apps in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			a := makeApp(t, string(body))
			offer := Offer{Resources: parseResources(t, "cpus:4;mem:4096;disk:1000;gpus:2;ports:[80-81,31000-31003,31100-31200];cpus(web):0.25")}
			pick, refusals := Match(offer, Demand{App: a}, Settings{GPUsUnrestricted: true}, newRand())
			if refusals != nil {
				t.Fatalf("refused: %v", refusals)
			}
			if !offer.Resources.Contains(pick.All()) {
				t.Errorf("picked %s from an offer of %s", pick.All(), offer.Resources)
			}
			info := Build(launch(t, a, pick), Settings{MesosBridgeName: "mesos-bridge"})
			if err := proto.CheckInitialized(info); err != nil {
				t.Errorf("the task lacks something: %v", err)
			}
			encoded, err := codec.JSON.Marshal(info)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, encoded, "", " "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("the task differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortVariables(t *testing.T) {
	tests := []struct {
		name, ports string
		picked      []PickedPort
		want        string // the variables of the ports, sorted
	}{
		{
			"the example of the specification",
			`"networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80,"hostPort":0,"name":"http"},{"containerPort":443,"hostPort":0}]}`,
			[]PickedPort{{Host: 31004}, {Host: 31005}},
			"PORT=31004 PORT0=31004 PORT1=31005 PORTS=31004,31005 PORT_443=31005 PORT_80=31004 PORT_HTTP=31004",
		},
		{
			"host mode names the service port",
			`"portDefinitions":[{"port":8080,"name":"web-ui"}]`,
			[]PickedPort{{Host: 31004}},
			"PORT=31004 PORT0=31004 PORTS=31004 PORT_8080=31004 PORT_WEB-UI=31004",
		},
		{
			"a port of the container is not listed",
			`"networks":[{"name":"n"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80,"name":"http"},{"containerPort":81,"hostPort":0}]}`,
			[]PickedPort{{}, {Host: 31004}},
			"PORT=31004 PORT0=80 PORT1=31004 PORTS=31004 PORT_80=80 PORT_81=31004 PORT_HTTP=80",
		},
		{
			"a number that was made up is listed last",
			`"networks":[{"name":"n"}],"container":{"type":"MESOS","portMappings":[{},{"hostPort":0}]}`,
			[]PickedPort{{MadeUp: 2000}, {Host: 31004}},
			"PORT=31004 PORT0=2000 PORT1=31004 PORTS=31004,2000 PORT_2000=2000 PORT_31004=31004",
		},
		{
			"only ports of the container: no list",
			`"networks":[{"name":"n"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80}]}`,
			[]PickedPort{{}},
			"PORT0=80 PORT_80=80",
		},
		{"no ports, no variables", `"portDefinitions":[]`, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := launch(t, makeApp(t, `{"id":"/a","cmd":"x",`+tt.ports+`}`), Pick{Ports: tt.picked})
			for _, prefix := range []string{"", "X_"} {
				var got []string
				env := Environment(l, Settings{EnvVarsPrefix: prefix})
				for _, name := range slices.Sorted(maps.Keys(env)) {
					if plain, ok := strings.CutPrefix(name, prefix); ok && strings.HasPrefix(plain, "PORT") {
						got = append(got, plain+"="+env[name])
					}
				}
				if strings.Join(got, " ") != tt.want {
					t.Errorf("with prefix %q:\ngot  %s\nwant %s", prefix, strings.Join(got, " "), tt.want)
				}
				if env[prefix+"HOST"] != "edge-7" {
					t.Errorf("HOST is %q", env[prefix+"HOST"])
				}
			}
		})
	}
}

func TestEnvironmentOrder(t *testing.T) {
	a := makeApp(t, `{"id":"/shop/web","cmd":"x","cpus":0.5,"env":{"HOST":"mine","PORT0":"1","MARATHON_APP_ID":"other","S":{"secret":"s"}},"secrets":{"s":{"source":"x"}},
		"labels":{"a.b-c":"1","tier":"front","`+strings.Repeat("k", 493)+`":"x","long":"`+strings.Repeat("v", 512)+`"}}`)
	l := launch(t, a, Pick{Ports: []PickedPort{{Host: 31004}}})
	l.EnforceGroupRole = true
	env := Environment(l, Settings{})
	for name, want := range map[string]string{
		"HOST": "mine", "PORT0": "1", "PORT": "31004", "MARATHON_APP_ID": "other", "MESOS_TASK_ID": l.Task.String(),
		"MARATHON_APP_VERSION": "2024-05-04T10:11:12.345Z", "MARATHON_APP_RESOURCE_CPUS": "0.5", "MARATHON_APP_RESOURCE_MEM": "128.0",
		"MARATHON_APP_RESOURCE_DISK": "0.0", "MARATHON_APP_RESOURCE_GPUS": "0", "MARATHON_APP_ENFORCE_GROUP_ROLE": "TRUE",
		"MARATHON_APP_LABELS": "A_B_C TIER", "MARATHON_APP_LABEL_A_B_C": "1", "MARATHON_APP_LABEL_TIER": "front",
	} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	for _, name := range []string{"S", "MARATHON_APP_DOCKER_IMAGE", "MARATHON_APP_LABEL_LONG"} {
		if value, ok := env[name]; ok {
			t.Errorf("%s=%q should not be there", name, value)
		}
	}
	plain := Environment(launch(t, makeApp(t, `{"id":"/a","cmd":"x","portDefinitions":[]}`), Pick{}), Settings{})
	if labels, ok := plain["MARATHON_APP_LABELS"]; !ok || labels != "" {
		t.Errorf("without labels MARATHON_APP_LABELS is %q, %v", labels, ok)
	}
}

func TestMatchTakesFromPreferredRoles(t *testing.T) {
	const offer = "cpus(web):1;cpus:4;mem:512;ports(web):[31000-31000];ports:[31001-31001]"
	tests := []struct {
		name, fields string
		s            Settings
		want         string
	}{
		{"reserved first, the rest unreserved", `"cpus":1.5,"ports":[0,0]`, Settings{}, "cpus(web):1;cpus:0.5;mem:128;ports(web):[31000-31000];ports:[31001-31001]"},
		{"reserved is enough", `"cpus":0.5,"portDefinitions":[]`, Settings{}, "cpus(web):0.5;mem:128"},
		{"only unreserved, by flag", `"cpus":1.5,"ports":[0]`, Settings{AcceptedRoles: Unreserved}, "cpus:1.5;mem:128;ports:[31001-31001]"},
		{"only unreserved, by the app", `"cpus":1.5,"ports":[0],"acceptedResourceRoles":["*"]`, Settings{}, "cpus:1.5;mem:128;ports:[31001-31001]"},
		{"only reserved, by flag", `"cpus":1,"mem":0,"ports":[0]`, Settings{AcceptedRoles: Reserved}, "cpus(web):1;ports(web):[31000-31000]"},
		{"the app has the last word", `"cpus":1,"mem":0,"portDefinitions":[],"acceptedResourceRoles":["web"]`, Settings{AcceptedRoles: Unreserved}, "cpus(web):1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pool := parseResources(t, offer)
			pick, refusals := Match(Offer{Resources: pool}, Demand{App: makeApp(t, `{"id":"/a","cmd":"x",`+tt.fields+`}`)}, tt.s, newRand())
			if refusals != nil {
				t.Fatalf("refused: %v", refusals)
			}
			if want := parseResources(t, tt.want); !pick.All().Equal(want) {
				t.Errorf("picked %s, want %s", pick.All(), want)
			}
		})
	}
}

func TestMatchKeepsAllocation(t *testing.T) {
	offered := parseResources(t, "cpus:1;mem:128;ports:[31000-31000]").AllocatedTo("web")
	pick, refusals := Match(Offer{Resources: offered}, Demand{App: makeApp(t, `{"id":"/a","cmd":"x"}`)}, Settings{}, newRand())
	if refusals != nil {
		t.Fatalf("refused: %v", refusals)
	}
	if !pick.All().Equal(offered) {
		t.Errorf("picked %s of %s", pick.All(), offered)
	}
	for _, refined := range []bool{false, true} {
		info := Build(launch(t, makeApp(t, `{"id":"/a","cmd":"x"}`), pick), Settings{Refined: refined})
		for _, r := range info.GetResources() {
			if r.GetAllocationInfo().GetRole() != "web" || (r.Role == nil) != refined {
				t.Errorf("refined %v: %v", refined, r)
			}
		}
	}
}

func TestMatchPorts(t *testing.T) {
	match := func(t *testing.T, offer, fields string, rng *rand.Rand) (Pick, []Refusal) {
		t.Helper()
		return Match(Offer{Resources: parseResources(t, "cpus:9;mem:9999;"+offer)}, Demand{App: makeApp(t, `{"id":"/a","cmd":"x",`+fields+`}`)}, Settings{}, rng)
	}
	t.Run("random ones are of the offer and differ", func(t *testing.T) {
		rng := newRand()
		first := make(map[int]bool)
		for range 50 {
			pick, refusals := match(t, "ports:[31000-31009,31020-31029]", `"ports":[0,0,0,0,0]`, rng)
			if refusals != nil {
				t.Fatal(refusals)
			}
			seen := make(map[int]bool)
			for _, port := range pick.HostPorts() {
				if seen[port] || port < 31000 || port > 31029 || port > 31009 && port < 31020 {
					t.Fatalf("picked %v", pick.HostPorts())
				}
				seen[port] = true
			}
			first[pick.Ports[0].Host] = true
		}
		if len(first) < 5 {
			t.Errorf("50 launches began with %d different ports only", len(first))
		}
	})
	t.Run("the last port is found", func(t *testing.T) {
		pick, refusals := match(t, "ports:[31000-31001,31005-31005]", `"ports":[0,0,0]`, newRand())
		if refusals != nil {
			t.Fatal(refusals)
		}
		got := pick.HostPorts()
		slices.Sort(got)
		if !slices.Equal(got, []int{31000, 31001, 31005}) {
			t.Errorf("picked %v", got)
		}
	})
	t.Run("required ones are kept from the random ones", func(t *testing.T) {
		fields := `"networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"hostPort":0},{"hostPort":31001}]}`
		pick, refusals := match(t, "ports:[31000-31001]", fields, newRand())
		if refusals != nil {
			t.Fatal(refusals)
		}
		if want := []int{31000, 31001}; !slices.Equal(pick.HostPorts(), want) {
			t.Errorf("picked %v, want %v", pick.HostPorts(), want)
		}
	})
	t.Run("requirePorts takes the service ports", func(t *testing.T) {
		pick, refusals := match(t, "ports:[8000-12000]", `"requirePorts":true,"ports":[0,8080]`, newRand())
		if refusals != nil {
			t.Fatal(refusals)
		}
		if want := []int{10000, 8080}; !slices.Equal(pick.HostPorts(), want) {
			t.Errorf("picked %v, want %v", pick.HostPorts(), want)
		}
	})
	t.Run("a number is made up where there is none", func(t *testing.T) {
		pick, refusals := match(t, "ports:[1-2]", `"networks":[{"name":"n"}],"container":{"type":"MESOS","portMappings":[{},{"containerPort":80}]}`, newRand())
		if refusals != nil {
			t.Fatal(refusals)
		}
		if len(pick.HostPorts()) != 0 || pick.Ports[0].MadeUp < 1025 || pick.Ports[1] != (PickedPort{}) {
			t.Errorf("picked %+v", pick.Ports)
		}
	})
	for _, tt := range []struct{ name, offer, fields, why string }{
		{"too few", "ports:[31000-31000]", `"ports":[0,0]`, "needs 2 ports, the offer has too few for roles web and *"},
		{"none", "", `"ports":[0]`, "needs 1 ports, the offer has too few for roles web and *"},
		{"not that one", "ports:[31000-31000]", `"requirePorts":true,"ports":[80]`, "needs port 80, which the offer does not have for roles web and *"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, refusals := match(t, tt.offer, tt.fields, newRand())
			if want := []Refusal{{InsufficientPorts, tt.why}}; !slices.Equal(refusals, want) {
				t.Errorf("got %v, want %v", refusals, want)
			}
		})
	}
}

func TestMatchRefuses(t *testing.T) {
	plain := Offer{Resources: parseResources(t, "cpus:4;mem:4096;disk:1000;ports:[31000-31010]"), Place: constraint.Place{Hostname: "edge-7"}}
	with := func(change func(*Offer)) Offer {
		o := plain
		change(&o)
		return o
	}
	labelled := plain.Resources.Proto()
	for _, r := range labelled {
		r.Reservations = []*mesos.Resource_ReservationInfo{{
			Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("web"),
			Labels: &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String("marathon_task_id"), Value: proto.String("x")}}},
		}}
	}
	ofAnother, err := resources.FromProto(labelled)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, fields string
		offer        Offer
		s            Settings
		counted      []constraint.Place
		want         []Refusal
	}{
		{"cpus", `"cpus":4.5`, plain, Settings{}, nil, []Refusal{{InsufficientCpus, "needs 4.5 cpus, the offer has 4.0 for roles web and *"}}},
		{"mem", `"mem":4097,"acceptedResourceRoles":["*"]`, plain, Settings{}, nil, []Refusal{{InsufficientMemory, "needs 4097.0 mem, the offer has 4096.0 for role *"}}},
		{"disk", `"disk":1000.5`, plain, Settings{}, nil, []Refusal{{InsufficientDisk, "needs 1000.5 disk, the offer has 1000.0 for roles web and *"}}},
		{"gpus", `"gpus":1`, plain, Settings{}, nil, []Refusal{{InsufficientGpus, "needs 1.0 gpus, the offer has 0.0 for roles web and *"}}},
		{"the executor needs something too", `"cpus":4,"executor":"/e"`, plain, Settings{}, nil, []Refusal{{InsufficientCpus, "needs 4.1 cpus, the offer has 4.0 for roles web and *"}}},
		{"everything at once", `"cpus":5,"mem":5000,"disk":5000`, plain, Settings{}, nil, []Refusal{
			{InsufficientCpus, "needs 5.0 cpus, the offer has 4.0 for roles web and *"},
			{InsufficientMemory, "needs 5000.0 mem, the offer has 4096.0 for roles web and *"},
			{InsufficientDisk, "needs 5000.0 disk, the offer has 1000.0 for roles web and *"},
		}},
		{
			"constraint", `"constraints":[["hostname","UNIQUE"]]`, plain,
			Settings{},
			[]constraint.Place{plain.Place},
			[]Refusal{{UnfulfilledConstraint, `hostname:UNIQUE: hostname "edge-7" already has an instance`}},
		},
		{
			"region", `"cpus":1`, with(func(o *Offer) { o.Place.Region = "us" }),
			Settings{HomeRegion: "eu"},
			nil,
			[]Refusal{{UnfulfilledConstraint, `edge-7 is in region "us", the master in "eu", and no constraint on @region or @zone allows that`}},
		},
		{"offer to another role", `"cpus":1`, with(func(o *Offer) { o.Resources = o.Resources.AllocatedTo("db") }), Settings{}, nil, []Refusal{
			{UnfulfilledRole, "the offer is to role db, and the app runs under web"},
			{InsufficientCpus, "needs 1.0 cpus, the offer has 0.0 for roles web and *"},
			{InsufficientMemory, "needs 128.0 mem, the offer has 0.0 for roles web and *"},
			{InsufficientPorts, "needs 1 ports, the offer has too few for roles web and *"},
		}},
		{"maintenance", `"cpus":1`, with(func(o *Offer) { o.Maintenance = true }), Settings{}, nil, []Refusal{{AgentMaintenance, "the agent has a maintenance window"}}},
		{
			"GPUs are for others", `"cpus":1`, with(func(o *Offer) { o.Resources = o.Resources.Add(parseResources(t, "gpus:1")) }),
			Settings{},
			nil,
			[]Refusal{{DeclinedScarceResources, "the agent has GPUs, and the app uses none"}},
		},
		{
			"GPUs are for others, says the label", `"labels":{"GPU_SCHEDULING_BEHAVIOR":"restricted"}`,
			with(func(o *Offer) { o.Resources = o.Resources.Add(parseResources(t, "gpus:1")) }),
			Settings{GPUsUnrestricted: true},
			nil,
			[]Refusal{{DeclinedScarceResources, "the agent has GPUs, and the app uses none"}},
		},
		{
			"GPUs do not matter, says the label", `"labels":{"GPU_SCHEDULING_BEHAVIOR":"unrestricted"}`,
			with(func(o *Offer) { o.Resources = o.Resources.Add(parseResources(t, "gpus:1")) }),
			Settings{},
			nil, nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := makeApp(t, `{"id":"/a","cmd":"x",`+tt.fields+`}`)
			rules, err := constraint.Compile(a.Constraints)
			if err != nil {
				t.Fatal(err)
			}
			pick, refusals := Match(tt.offer, Demand{App: a, Rules: rules, Counted: tt.counted}, tt.s, newRand())
			if diff := cmp.Diff(tt.want, refusals); diff != "" {
				t.Errorf("refusals differ (-want +got):\n%s", diff)
			}
			if tt.want != nil && !pick.All().Empty() {
				t.Errorf("refused, and picked %s", pick.All())
			}
		})
	}
	t.Run("what is kept for a certain instance is nobody's", func(t *testing.T) {
		_, refusals := Match(Offer{Resources: ofAnother}, Demand{App: makeApp(t, `{"id":"/a","cmd":"x"}`)}, Settings{}, newRand())
		if len(refusals) == 0 || refusals[0] != (Refusal{UnfulfilledRole, "nothing in the offer is for roles web and *"}) {
			t.Errorf("got %v", refusals)
		}
	})
	t.Run("a resident app waits for its reservation", func(t *testing.T) {
		a := makeApp(t, `{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`)
		_, refusals := Match(plain, Demand{App: a}, Settings{}, newRand())
		if len(refusals) != 1 || refusals[0].Reason != NoCorrespondingReservationFound {
			t.Errorf("got %v", refusals)
		}
	})
}

func TestSummary(t *testing.T) {
	cpus, ports := Refusal{Reason: InsufficientCpus}, Refusal{Reason: InsufficientPorts}
	rows := Summary([][]Refusal{{cpus, ports}, {cpus}, {ports}})
	processed := map[Reason][2]int{}
	for _, row := range rows {
		processed[row.Reason] = [2]int{row.Declined, row.Processed}
	}
	if len(rows) != len(Funnel()) || processed[UnfulfilledRole] != [2]int{0, 3} || processed[InsufficientCpus] != [2]int{2, 3} ||
		processed[InsufficientMemory] != [2]int{0, 1} || processed[InsufficientPorts] != [2]int{1, 1} || processed[DeclinedScarceResources] != [2]int{0, 0} {
		t.Errorf("got %v", rows)
	}
}

func TestUnderMaintenance(t *testing.T) {
	now := time.Unix(1000, 0)
	window := func(start int64, length int64) *mesos.Unavailability {
		u := &mesos.Unavailability{Start: &mesos.TimeInfo{Nanoseconds: proto.Int64(start * 1e9)}}
		if length > 0 {
			u.Duration = &mesos.DurationInfo{Nanoseconds: proto.Int64(length * 1e9)}
		}
		return u
	}
	tests := []struct {
		name     string
		window   *mesos.Unavailability
		draining time.Duration
		want     bool
	}{
		{"no window", nil, time.Hour, false},
		{"later", window(1100, 10), 0, false},
		{"soon", window(1100, 10), 100 * time.Second, true},
		{"now", window(990, 20), 0, true},
		{"over", window(900, 100), 0, false},
		{"never over", window(900, 0), 0, true},
	}
	for _, tt := range tests {
		if got := UnderMaintenance(tt.window, now, tt.draining); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	offered, err := resources.Parse("cpus:8;mem:16384;disk:100000;ports:[31000-32000]", "")
	if err != nil {
		b.Fatal(err)
	}
	a := &app.App{
		ID: "/a", Cmd: "x", Role: "*", CPUs: 0.1, Mem: 16, Instances: 1, Networks: []app.Network{{Mode: app.HostNetwork}},
		PortDefinitions: []app.PortDefinition{{Port: 10000, Protocol: "tcp"}},
	}
	rng := newRand()
	b.ReportAllocs()
	for b.Loop() {
		if _, refusals := Match(Offer{Resources: offered}, Demand{App: a}, Settings{}, rng); refusals != nil {
			b.Fatal(refusals)
		}
	}
}
