package app

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// defaults is what every answer about a host app holds, without id and what the tests name.
const defaults = `"instances":1,"cpus":1,"mem":128,"disk":0,"gpus":0,"executor":"","role":"*","requirePorts":false,
	"backoffSeconds":1,"backoffFactor":1.15,"maxLaunchDelaySeconds":300,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},
	"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0},"killSelection":"YOUNGEST_FIRST","labels":{}`

const hostDefaults = defaults + `,"networks":[{"mode":"host"}]`

func TestConversion(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{
			"an app gets its defaults",
			`{"id":"/a","cmd":"x"}`,
			`{"id":"/a","cmd":"x",` + hostDefaults + `,"portDefinitions":[{"port":0,"protocol":"tcp","name":"default"}]}`,
		},
		{
			"no ports at all stay none",
			`{"id":"/a","cmd":"x","portDefinitions":[]}`,
			`{"id":"/a","cmd":"x",` + hostDefaults + `,"portDefinitions":[]}`,
		},
		{
			"old host ports",
			`{"id":"/h","cmd":"./s","ports":[8080,0]}`,
			`{"id":"/h","cmd":"./s",` + hostDefaults + `,"portDefinitions":[{"port":8080,"protocol":"tcp"},{"port":0,"protocol":"tcp"}]}`,
		},
		{
			"old ports beside equal definitions",
			`{"id":"/h","cmd":"./s","ports":[8080],"portDefinitions":[{"port":8080,"name":"web","protocol":"tcp,udp"}]}`,
			`{"id":"/h","cmd":"./s",` + hostDefaults + `,"portDefinitions":[{"port":8080,"protocol":"udp,tcp","name":"web"}]}`,
		},
		{
			"old bridge app",
			`{"id":"/w","container":{"type":"DOCKER","docker":{"image":"nginx","network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0,"servicePort":9000}]}},"uris":["http://x/cfg.tgz"]}`,
			`{"id":"/w",` + defaults + `,"networks":[{"mode":"container/bridge"}],
			 "container":{"type":"DOCKER","docker":{"image":"nginx","forcePullImage":false,"privileged":false,"parameters":[]},"volumes":[],
			 "portMappings":[{"containerPort":80,"hostPort":0,"servicePort":9000,"protocol":"tcp","labels":{}}]},
			 "fetch":[{"uri":"http://x/cfg.tgz","extract":true,"executable":false,"cache":false}]}`,
		},
		{
			"old host app in docker loses its mappings",
			`{"id":"/w","container":{"docker":{"image":"nginx","network":"HOST","portMappings":[{"containerPort":80}]}}}`,
			`{"id":"/w",` + hostDefaults + `,"portDefinitions":[{"port":0,"protocol":"tcp","name":"default"}],
			 "container":{"type":"DOCKER","docker":{"image":"nginx","forcePullImage":false,"privileged":false,"parameters":[]},"volumes":[]}}`,
		},
		{
			"old user network",
			`{"id":"/w","container":{"docker":{"image":"nginx","network":"USER"}},"ipAddress":{"networkName":"edge","labels":{"a":"b"}}}`,
			`{"id":"/w",` + defaults + `,"networks":[{"mode":"container","name":"edge","labels":{"a":"b"}}],
			 "container":{"type":"DOCKER","docker":{"image":"nginx","forcePullImage":false,"privileged":false,"parameters":[]},"volumes":[],
			 "portMappings":[{"containerPort":0,"servicePort":0,"protocol":"tcp","name":"default","labels":{}}]}}`,
		},
		{
			"old address for each task",
			`{"id":"/i","cmd":"./s","ipAddress":{"networkName":"edge","groups":["g"],"discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`,
			`{"id":"/i","cmd":"./s",` + defaults + `,"networks":[{"mode":"container","name":"edge"}],
			 "container":{"type":"MESOS","volumes":[],"portMappings":[{"containerPort":80,"name":"http","protocol":"tcp","servicePort":0,"labels":{}}]}}`,
		},
		{
			"an address in the bridge is bridge mode",
			`{"id":"/i","cmd":"./s","ipAddress":{"networkName":"mesos-bridge"}}`,
			`{"id":"/i","cmd":"./s",` + defaults + `,"networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","volumes":[],
			 "portMappings":[{"containerPort":0,"hostPort":0,"servicePort":0,"protocol":"tcp","name":"default","labels":{}}]}}`,
		},
		{
			"bridge mode without container",
			`{"id":"/b","cmd":"./s","networks":[{"mode":"container/bridge"}],"requirePorts":true}`,
			`{"id":"/b","cmd":"./s",` + defaults + `,"networks":[{"mode":"container/bridge"}],
			 "container":{"type":"MESOS","volumes":[],"portMappings":[{"containerPort":0,"hostPort":0,"servicePort":0,"protocol":"tcp","name":"default","labels":{}}]}}`,
		},
		{
			"no mappings stay none",
			`{"id":"/b","cmd":"./s","networks":[{"name":"n"}],"container":{"type":"MESOS","portMappings":[]}}`,
			`{"id":"/b","cmd":"./s",` + defaults + `,"networks":[{"mode":"container","name":"n"}],"container":{"type":"MESOS","volumes":[],"portMappings":[]}}`,
		},
		{
			"more old ports than mappings",
			`{"id":"/b","cmd":"./s","networks":[{"name":"n"}],"ports":[1,2],"container":{"type":"MESOS","portMappings":[{"containerPort":80}]}}`,
			`{"id":"/b","cmd":"./s",` + defaults + `,"networks":[{"mode":"container","name":"n"}],"container":{"type":"MESOS","volumes":[],"portMappings":[
			 {"containerPort":80,"servicePort":0,"protocol":"tcp","labels":{}},{"containerPort":0,"servicePort":0,"protocol":"tcp","labels":{}}]}}`,
		},
		{
			"only archives are extracted",
			`{"id":"/a","cmd":"x","portDefinitions":[],"uris":["http://x/a.tar.gz?sig=1","http://x/a.sh"]}`,
			`{"id":"/a","cmd":"x",` + hostDefaults + `,"portDefinitions":[],"fetch":[{"uri":"http://x/a.tar.gz?sig=1","extract":true,"executable":false,"cache":false},
			 {"uri":"http://x/a.sh","extract":false,"executable":false,"cache":false}]}`,
		},
		{
			"checks get a port and their defaults",
			`{"id":"/a","cmd":"x","portDefinitions":[{}],"healthChecks":[{"path":"ok"},{"protocol":"COMMAND","command":{"value":"true"},"ignoreHttp1xx":true}]}`,
			`{"id":"/a","cmd":"x",` + hostDefaults + `,"portDefinitions":[{"port":0,"protocol":"tcp"}],"healthChecks":[
			 {"protocol":"HTTP","path":"/ok","portIndex":0,"gracePeriodSeconds":300,"intervalSeconds":60,"timeoutSeconds":20,"maxConsecutiveFailures":3,"delaySeconds":15,"ignoreHttp1xx":false,"ipProtocol":"IPv4"},
			 {"protocol":"COMMAND","gracePeriodSeconds":300,"intervalSeconds":60,"timeoutSeconds":20,"maxConsecutiveFailures":3,"delaySeconds":15,"ignoreHttp1xx":false,"ipProtocol":"IPv4","command":{"value":"true"}}]}`,
		},
		{
			"readiness check",
			`{"id":"/a","cmd":"x","portDefinitions":[{"name":"http-api"}],"readinessChecks":[{"httpStatusCodesForReady":[]}]}`,
			`{"id":"/a","cmd":"x",` + hostDefaults + `,"portDefinitions":[{"port":0,"protocol":"tcp","name":"http-api"}],"readinessChecks":[
			 {"name":"readinessCheck","protocol":"HTTP","path":"/","portName":"http-api","intervalSeconds":30,"timeoutSeconds":10,"httpStatusCodesForReady":[200],"preserveLastResponse":false}]}`,
		},
		{
			"constraints in capitals, secrets, limits, dependencies made absolute",
			`{"id":"/a","cmd":"x","portDefinitions":[],"constraints":[["rack","like","a|b"],["hostname","unique"]],"env":{"S":{"secret":"s"},"V":"v"},
			 "secrets":{"s":{"source":"/s"}},"resourceLimits":{"cpus":"unlimited","mem":256.5},"dependencies":["b","./c","../d","/b"]}`,
			`{"id":"/a","cmd":"x",` + hostDefaults + `,"portDefinitions":[],"constraints":[["rack","LIKE","a|b"],["hostname","UNIQUE"]],"env":{"S":{"secret":"s"},"V":"v"},
			 "secrets":{"s":{"source":"/s"}},"resourceLimits":{"cpus":"unlimited","mem":256.5},"dependencies":["/b","/c","/d"]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := create(tt.body, allFeatures())
			if err != nil {
				t.Fatal(err)
			}
			checkJSON(t, a, tt.want)

			// What was written reads back as the same app, both for the store and for a client.
			encoded, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			stored := new(App)
			if err := json.Unmarshal(encoded, stored); err != nil {
				t.Fatal(err)
			}
			if !SameConfig(a, stored) {
				t.Errorf("stored and read, the app differs: %s", cmp.Diff(a, stored))
			}
			again, err := create(string(encoded), allFeatures())
			if err != nil {
				t.Fatalf("what is written is refused when it comes back: %v", err)
			}
			if !SameConfig(a, again) {
				t.Errorf("written and posted again, the app differs: %s", cmp.Diff(a, again))
			}
		})
	}
}

func TestStrategyDefaults(t *testing.T) {
	resident := `"role":"r","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}`
	external := `"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}`
	tests := []struct {
		name, fields string
		upgrade      UpgradeStrategy
		unreachable  UnreachableStrategy
	}{
		{"an app", `"role":"r"`, UpgradeStrategy{1, 1}, UnreachableStrategy{}},
		{"a resident app", resident, UpgradeStrategy{0.5, 0}, UnreachableStrategy{Disabled: true}},
		{"an app with an external volume", external, UpgradeStrategy{0.5, 0}, UnreachableStrategy{}},
		{"a single instance", `"labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"}`, UpgradeStrategy{}, UnreachableStrategy{}},
		{"half of the unreachable strategy", `"unreachableStrategy":{"expungeAfterSeconds":9}`, UpgradeStrategy{1, 1}, UnreachableStrategy{ExpungeAfterSeconds: 9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := allFeatures()
			s.DefaultRole = "r"
			a, err := create(`{"id":"/a","cmd":"x",`+tt.fields+`}`, s)
			if err != nil {
				t.Fatal(err)
			}
			if a.UpgradeStrategy != tt.upgrade || a.UnreachableStrategy != tt.unreachable {
				t.Errorf("got %v and %v, want %v and %v", a.UpgradeStrategy, a.UnreachableStrategy, tt.upgrade, tt.unreachable)
			}
		})
	}
}

func TestDefaultNetworkName(t *testing.T) {
	s := allFeatures()
	s.DefaultNetworkName = "edge"
	a, err := create(`{"id":"/a","cmd":"x","networks":[{"mode":"container"}]}`, s)
	if err != nil {
		t.Fatal(err)
	}
	if a.Networks[0].Name != "edge" {
		t.Errorf("network is %q, want the default one", a.Networks[0].Name)
	}
}

func TestExecutorResources(t *testing.T) {
	if a := mustCreate(t, `{"id":"/a","cmd":"x","executor":"/opt/run","executorResources":{"cpus":1}}`); a.ExecutorResources == nil ||
		*a.ExecutorResources != (ExecutorResources{CPUs: 1, Mem: 32, Disk: 10}) {
		t.Errorf("got %v", a.ExecutorResources)
	}
	if a := mustCreate(t, `{"id":"/a","cmd":"x","executor":"//cmd","executorResources":{"cpus":1}}`); a.ExecutorResources != nil {
		t.Errorf("the command executor got %v", a.ExecutorResources)
	}
}

func TestUpdate(t *testing.T) {
	tests := []struct{ name, old, update, want string }{
		{
			"a field replaces the old one as a whole, others stay",
			`{"id":"/a","cmd":"x","portDefinitions":[],"env":{"A":"1","B":"2"},"labels":{"l":"m"},"mem":64}`,
			`{"env":{"C":"3"},"instances":5}`,
			`{"id":"/a","cmd":"x","portDefinitions":[],"env":{"C":"3"},"labels":{"l":"m"},"mem":64,"instances":5}`,
		},
		{
			"null stays",
			`{"id":"/a","cmd":"x","mem":64}`,
			`{"mem":null,"ports":null,"cpus":2}`,
			`{"id":"/a","cmd":"x","mem":64,"cpus":2}`,
		},
		{
			"args in place of cmd",
			`{"id":"/a","cmd":"x"}`,
			`{"cmd":"","args":["y","z"]}`,
			`{"id":"/a","args":["y","z"]}`,
		},
		{
			"cmd in place of args",
			`{"id":"/a","args":["y"]}`,
			`{"args":[],"cmd":"x"}`,
			`{"id":"/a","cmd":"x"}`,
		},
		{
			"old ports in place of definitions",
			`{"id":"/a","cmd":"x","portDefinitions":[{"port":1,"name":"n"}]}`,
			`{"ports":[0]}`,
			`{"id":"/a","cmd":"x","portDefinitions":[{"port":0}]}`,
		},
		{
			"from host to bridge",
			`{"id":"/a","cmd":"x","portDefinitions":[{"port":1}]}`,
			`{"networks":[{"mode":"container/bridge"}]}`,
			`{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge"}]}`,
		},
		{
			"from bridge to host",
			`{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80}]}}`,
			`{"networks":[{"mode":"host"}]}`,
			`{"id":"/a","cmd":"x","container":{"type":"MESOS"}}`,
		},
		{
			"everything that can be kept is kept",
			`{"id":"/a","cmd":"x","user":"u","gpus":1,"executor":"/e","constraints":[["hostname","UNIQUE"]],"acceptedResourceRoles":["*"],"requirePorts":true,
			  "fetch":[{"uri":"u"}],"dependencies":["/b"],"healthChecks":[{}],"check":{"tcp":{}},"readinessChecks":[{"portName":"default"}],"backoffSeconds":2,"backoffFactor":2,
			  "maxLaunchDelaySeconds":9,"taskKillGracePeriodSeconds":5,"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0.5},"unreachableStrategy":"disabled",
			  "killSelection":"OLDEST_FIRST","secrets":{"s":{"source":"x"}},"tty":true,"resourceLimits":{"mem":"unlimited"},"executorResources":{"cpus":2},"env":{"S":{"secret":"s"}}}`,
			`{"disk":7}`,
			`{"id":"/a","cmd":"x","user":"u","gpus":1,"executor":"/e","constraints":[["hostname","UNIQUE"]],"acceptedResourceRoles":["*"],"requirePorts":true,
			  "fetch":[{"uri":"u"}],"dependencies":["/b"],"healthChecks":[{}],"check":{"tcp":{}},"readinessChecks":[{"portName":"default"}],"backoffSeconds":2,"backoffFactor":2,
			  "maxLaunchDelaySeconds":9,"taskKillGracePeriodSeconds":5,"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0.5},"unreachableStrategy":"disabled",
			  "killSelection":"OLDEST_FIRST","secrets":{"s":{"source":"x"}},"tty":true,"resourceLimits":{"mem":"unlimited"},"executorResources":{"cpus":2},"env":{"S":{"secret":"s"}},"disk":7}`,
		},
		{
			"containers are kept with all they hold",
			`{"id":"/a","networks":[{"name":"n"}],"secrets":{"s":{"source":"x"}},"container":{"type":"MESOS","docker":{"image":"i","forcePullImage":true,"pullConfig":{"secret":"s"}},"linuxInfo":{"seccomp":{"unconfined":true}},
			  "portMappings":[{"containerPort":80,"name":"w"}],"volumes":[{"containerPath":"h","hostPath":"/h","mode":"RO"},{"containerPath":"s","secret":"s"},
			  {"containerPath":"e","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}}`,
			`{"mem":7}`,
			`{"id":"/a","mem":7,"networks":[{"name":"n"}],"secrets":{"s":{"source":"x"}},"container":{"type":"MESOS","docker":{"image":"i","forcePullImage":true,"pullConfig":{"secret":"s"}},"linuxInfo":{"seccomp":{"unconfined":true}},
			  "portMappings":[{"containerPort":80,"name":"w"}],"volumes":[{"containerPath":"h","hostPath":"/h","mode":"RO"},{"containerPath":"s","secret":"s"},
			  {"containerPath":"e","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old, want := mustCreate(t, tt.old), mustCreate(t, tt.want)
			root := EmptyRoot().WithApp(old)
			before, err := json.Marshal(old)
			if err != nil {
				t.Fatal(err)
			}
			got := mustUpdate(t, root, "/a", tt.update)
			if diff := cmp.Diff(string(mustJSON(want)), string(mustJSON(got))); diff != "" {
				t.Errorf("updated app differs (-want +got):\n%s", diff)
			}
			if after := mustJSON(old); string(after) != string(before) {
				t.Errorf("the old app was changed from %s to %s", before, after)
			}
		})
	}
}

func TestUpdateRefusesBothCommands(t *testing.T) {
	old := mustCreate(t, `{"id":"/a","cmd":"x"}`)
	d, err := ParseUpdate([]byte(`{"args":["y"]}`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Update(old, EmptyRoot().RulesFor("/a", DefaultSettings()))
	checkRefused(t, err, MessageObject, "/", "must either contain one of")
}

func TestReplace(t *testing.T) {
	root := mustCommit(t, EmptyRoot(), mustCreate(t, `{"id":"/a","cmd":"x","mem":64,"labels":{"a":"b"},"instances":4}`))
	d, err := ParseUpdate([]byte(`{"cmd":"y","version":"2020-01-01T00:00:00.000Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Replace(root.App("/a"), root.RulesFor("/a", DefaultSettings()))
	if err != nil {
		t.Fatal(err)
	}
	if want := mustCreate(t, `{"id":"/a","cmd":"y"}`); string(mustJSON(got)) != string(mustJSON(want)) {
		t.Errorf("got  %s\nwant %s", mustJSON(got), mustJSON(want))
	}
}
