package app

import (
	"strings"
	"testing"
)

// TestSchema are the rows of spec/marathon-app-schema.md that TestTypesAndLimits and TestRules leave out: types and limits of
// fields, and kinds of one rule.
func TestSchema(t *testing.T) {
	container := func(rest string) string { return `{"id":"/a","cmd":"x","container":{"type":"MESOS",` + rest + `}}` }
	volume := func(rest string) string {
		return container(`"volumes":[{"containerPath":"p","mode":"RW",` + rest + `}]`)
	}
	csi := func(options string) string {
		return volume(`"external":{"name":"v","provider":"csi","options":{"pluginName":"p","capability":` + options + `}}`)
	}
	long := strings.Repeat("x", 1025)
	for _, tt := range []struct{ name, body, message, path, text string }{
		// 1: types of every field that is not a text or has a limit.
		{"cmd", `{"id":"/a","cmd":1}`, MessageJSON, "/cmd", "error.expected.jsstring"},
		{"user", `{"id":"/a","user":1}`, MessageJSON, "/user", "error.expected.jsstring"},
		{"env", `{"id":"/a","env":[]}`, MessageJSON, "/env", "error.expected.jsobject"},
		{"env secret empty", `{"id":"/a","env":{"A":{"secret":""}}}`, MessageJSON, "/env/A/secret", "error.minLength"},
		{"instances as text", `{"id":"/a","instances":"1"}`, MessageJSON, "/instances", "error.expected.jsnumber"},
		{"fraction of a GPU", `{"id":"/a","gpus":0.5}`, MessageJSON, "/gpus", "error.expected.jsnumberformatexception"},
		{"resource limits", `{"id":"/a","resourceLimits":{"mem":-1}}`, MessageJSON, "/resourceLimits/mem", "error.min"},
		{"executor with empty segments", `{"id":"/a","executor":"a//b"}`, MessageJSON, "/executor", "error.pattern"},
		{"executor resources", `{"id":"/a","executorResources":{"cpus":-1}}`, MessageJSON, "/executorResources/cpus", "error.min"},
		{"executor memory", `{"id":"/a","executorResources":{"mem":"1"}}`, MessageJSON, "/executorResources/mem", "error.expected.jsnumber"},
		{"executor disk", `{"id":"/a","executorResources":{"disk":-1}}`, MessageJSON, "/executorResources/disk", "error.min"},
		{"role", `{"id":"/a","role":1}`, MessageJSON, "/role", "error.expected.jsstring"},
		{"networks", `{"id":"/a","networks":{}}`, MessageJSON, "/networks", "error.expected.jsarray"},
		{"network labels", `{"id":"/a","networks":[{"labels":{"a":1}}]}`, MessageJSON, "/networks(0)/labels/a", "error.expected.jsstring"},
		{"port definition below 0", `{"id":"/a","portDefinitions":[{"port":-1}]}`, MessageJSON, "/portDefinitions(0)/port", "error.min"},
		{"port labels", `{"id":"/a","portDefinitions":[{"labels":{"a":1}}]}`, MessageJSON, "/portDefinitions(0)/labels/a", "error.expected.jsstring"},
		{"fetch flags", `{"id":"/a","fetch":[{"uri":"u","extract":1}]}`, MessageJSON, "/fetch(0)/extract", "error.expected.jsboolean"},
		{"fetch cache", `{"id":"/a","fetch":[{"uri":"u","cache":"no"}]}`, MessageJSON, "/fetch(0)/cache", "error.expected.jsboolean"},
		{"fetch executable", `{"id":"/a","fetch":[{"uri":"u","executable":0}]}`, MessageJSON, "/fetch(0)/executable", "error.expected.jsboolean"},
		{"long uri", `{"id":"/a","uris":["` + long + `"]}`, MessageJSON, "/uris(0)", "error.maxLength"},
		{"dependencies", `{"id":"/a","dependencies":[1]}`, MessageJSON, "/dependencies(0)", "error.expected.jsstring"},
		{"backoff as text", `{"id":"/a","backoffSeconds":"1s"}`, MessageJSON, "/backoffSeconds", "error.expected.jsnumber"},
		{"backoff factor as text", `{"id":"/a","backoffFactor":"2"}`, MessageJSON, "/backoffFactor", "error.expected.jsnumber"},
		{"fraction of a launch delay", `{"id":"/a","maxLaunchDelaySeconds":0.5}`, MessageJSON, "/maxLaunchDelaySeconds", "error.expected.jsnumberformatexception"},
		{"upgrade strategy", `{"id":"/a","upgradeStrategy":1}`, MessageJSON, "/upgradeStrategy", "error.expected.jsobject"},
		{"health capacity", `{"id":"/a","upgradeStrategy":{"minimumHealthCapacity":"1","maximumOverCapacity":1}}`, MessageJSON, "/upgradeStrategy/minimumHealthCapacity", "error.expected.jsnumber"},
		{"inactive below 0", `{"id":"/a","unreachableStrategy":{"inactiveAfterSeconds":-1}}`, MessageJSON, "/unreachableStrategy/inactiveAfterSeconds", "error.min"},
		{"labels", `{"id":"/a","labels":{"a":null,"b":{}}}`, MessageJSON, "/labels/b", "error.expected.jsstring"},
		{"secrets", `{"id":"/a","secrets":{"s":"x"}}`, MessageJSON, "/secrets/s", "error.expected.jsobject"},
		{"tty", `{"id":"/a","tty":"yes"}`, MessageJSON, "/tty", "error.expected.jsboolean"},
		{"residency time-out", `{"id":"/a","residency":{"relaunchEscalationTimeoutSeconds":-1}}`, MessageJSON, "/residency/relaunchEscalationTimeoutSeconds", "error.min"},
		{"old address", `{"id":"/a","ipAddress":{"discovery":{"ports":[{"number":70000}]}}}`, MessageJSON, "/ipAddress/discovery/ports(0)/number", "error.max"},
		{"old address's port name", `{"id":"/a","ipAddress":{"discovery":{"ports":[{"number":1,"name":"A"}]}}}`, MessageJSON, "/ipAddress/discovery/ports(0)/name", "error.pattern"},
		{"old address's protocol", `{"id":"/a","ipAddress":{"discovery":{"ports":[{"number":1,"protocol":"x"}]}}}`, MessageJSON, "/ipAddress/discovery/ports(0)/protocol", "error.unknown.enum.literal"},

		// 3: containers.
		{"image", `{"id":"/a","container":{"docker":{"image":1}}}`, MessageJSON, "/container/docker/image", "error.expected.jsstring"},
		{"force pull", `{"id":"/a","container":{"docker":{"image":"i","forcePullImage":1}}}`, MessageJSON, "/container/docker/forcePullImage", "error.expected.jsboolean"},
		{"privileged", `{"id":"/a","container":{"docker":{"image":"i","privileged":"x"}}}`, MessageJSON, "/container/docker/privileged", "error.expected.jsboolean"},
		{"parameter without key", `{"id":"/a","container":{"docker":{"image":"i","parameters":[{"value":"v"}]}}}`, MessageJSON, "/container/docker/parameters(0)/key", "error.path.missing"},
		{"parameter with an empty key", `{"id":"/a","container":{"docker":{"image":"i","parameters":[{"key":"","value":"v"}]}}}`, MessageJSON, "/container/docker/parameters(0)/key", "error.minLength"},
		{"pull config", `{"id":"/a","container":{"type":"MESOS","docker":{"image":"i","pullConfig":{}}}}`, MessageJSON, "/container/docker/pullConfig/secret", "error.path.missing"},
		{"service port", container(`"portMappings":[{"servicePort":65536}]`), MessageJSON, "/container/portMappings(0)/servicePort", "error.max"},
		{"mapping's port below 0", container(`"portMappings":[{"containerPort":-1}]`), MessageJSON, "/container/portMappings(0)/containerPort", "error.min"},
		{"mapping's host port too high", container(`"portMappings":[{"hostPort":65536}]`), MessageJSON, "/container/portMappings(0)/hostPort", "error.max"},
		{"mapping's labels", container(`"portMappings":[{"labels":{"a":1}}]`), MessageJSON, "/container/portMappings(0)/labels/a", "error.expected.jsstring"},
		{"mapping's networks", container(`"portMappings":[{"networkNames":"n"}]`), MessageJSON, "/container/portMappings(0)/networkNames", "error.expected.jsarray"},
		{"name of a mapping with a dash at the end", container(`"portMappings":[{"name":"a-"}]`), MessageJSON, "/container/portMappings(0)/name", "error.pattern"},
		{"IPC mode", container(`"linuxInfo":{"ipcInfo":{"mode":"HOST"}}`), MessageJSON, "/container/linuxInfo/ipcInfo/mode", "error.unknown.enum.literal"},
		{"IPC without mode", container(`"linuxInfo":{"ipcInfo":{}}`), MessageJSON, "/container/linuxInfo/ipcInfo/mode", "error.path.missing"},
		{"shared memory below 0", container(`"linuxInfo":{"ipcInfo":{"mode":"PRIVATE","shmSize":-1}}`), MessageJSON, "/container/linuxInfo/ipcInfo/shmSize", "error.min"},
		{"seccomp", container(`"linuxInfo":{"seccomp":{"unconfined":1}}`), MessageJSON, "/container/linuxInfo/seccomp/unconfined", "error.expected.jsboolean"},

		// 2.7: volumes.
		{"persistent volume's type", volume(`"persistent":{"size":1,"type":"nfs"}`), MessageJSON, "/container/volumes(0)/persistent/type", "error.unknown.enum.literal"},
		{"persistent volume's size", volume(`"persistent":{"size":"1"}`), MessageJSON, "/container/volumes(0)/persistent/size", "error.expected.jsnumber"},
		{"persistent volume below 0", volume(`"persistent":{"size":-1}`), MessageObject, "/container/volumes(0)/persistent/size", "must be greater than 0"},
		{"persistent volume here", container(`"volumes":[{"containerPath":".","mode":"RW","persistent":{"size":1}}]`), MessageObject, "/container/volumes(0)/containerPath", "one relative path segment"},
		{"persistent volume further down", container(`"volumes":[{"containerPath":"a/b","mode":"RW","persistent":{"size":1}}]`), MessageObject, "/container/volumes(0)/containerPath", "one relative path segment"},
		{"volume constraint's expression", volume(`"persistent":{"type":"path","size":1,"constraints":[["path","LIKE","("]]}`), MessageObject, "/container/volumes(0)/persistent/constraints(0)", "is not a valid regular expression"},
		{"volume constraint's operator", volume(`"persistent":{"type":"path","size":1,"constraints":[["path","UNIQUE"]]}`), MessageObject, "/container/volumes(0)/persistent/constraints(0)", "only path with LIKE or UNLIKE"},
		{"external volume's size as text", volume(`"external":{"name":"v","provider":"dvdi","size":"1"}`), MessageJSON, "/container/volumes(0)/external/size", "error.expected.jsnumber"},
		{"external volume's options", volume(`"external":{"name":"v","provider":"dvdi","options":1}`), MessageJSON, "/container/volumes(0)/external/options", "error.expected.jsobject"},
		{"external volume without provider", volume(`"external":{"name":"v"}`), MessageObject, "/container/volumes(0)/external/provider", "must be dvdi or csi"},
		{"option without prefix", volume(`"external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d","/x":"y"}}`), MessageObject, "/container/volumes(0)/external/options//x", "prefix/name"},
		{"CSI access mode", csi(`{"accessMode":"ALL","accessType":"mount"}`), MessageObject, "/container/volumes(0)/external/options/capability/accessMode", "must be one of"},
		{"CSI access type", csi(`{"accessMode":"SINGLE_NODE_WRITER","accessType":"file"}`), MessageObject, "/container/volumes(0)/external/options/capability/accessType", "must be block or mount"},
		{"volume of no kind", volume(`"size":1`), MessageObject, "/container/volumes(0)", "exactly one of"},

		// 5: constraints.
		{"lower-case operator with a wrong value", `{"id":"/a","cmd":"x","constraints":[["rack","max_per","x"]]}`, MessageObject, "/constraints(0)", "MAX_PER requires an integer value"},
		{"no operator", `{"id":"/a","cmd":"x","constraints":[["rack",""]]}`, MessageObject, "/constraints(0)", "operator must be one of the following"},
		{"no fields at all", `{"id":"/a","cmd":"x","constraints":[[]]}`, MessageObject, "/constraints(0)", "either 2 or 3 fields"},
		{"constraint of numbers", `{"id":"/a","cmd":"x","constraints":[[1,2]]}`, MessageJSON, "/constraints(0)(0)", "error.expected.jsstring"},
		{"unlike no expression", `{"id":"/a","cmd":"x","constraints":[["rack","UNLIKE","["]]}`, MessageObject, "/constraints(0)", "is not a valid regular expression"},
		{"is a set", `{"id":"/a","cmd":"x","constraints":[["rack","IS","{a}"]]}`, MessageObject, "/constraints(0)", "IS only supports Mesos text and float values"},

		// 6: checks.
		{"health grace", `{"id":"/a","healthChecks":[{"gracePeriodSeconds":-1}]}`, MessageJSON, "/healthChecks(0)/gracePeriodSeconds", "error.min"},
		{"health interval", `{"id":"/a","healthChecks":[{"intervalSeconds":-1}]}`, MessageJSON, "/healthChecks(0)/intervalSeconds", "error.min"},
		{"health time-out", `{"id":"/a","healthChecks":[{"timeoutSeconds":-1}]}`, MessageJSON, "/healthChecks(0)/timeoutSeconds", "error.min"},
		{"health failures", `{"id":"/a","healthChecks":[{"maxConsecutiveFailures":-1}]}`, MessageJSON, "/healthChecks(0)/maxConsecutiveFailures", "error.min"},
		{"health delay", `{"id":"/a","healthChecks":[{"delaySeconds":-1}]}`, MessageJSON, "/healthChecks(0)/delaySeconds", "error.min"},
		{"health port below 0", `{"id":"/a","healthChecks":[{"port":-1}]}`, MessageJSON, "/healthChecks(0)/port", "error.min"},
		{"health command empty", `{"id":"/a","healthChecks":[{"protocol":"COMMAND","command":{"value":""}}]}`, MessageJSON, "/healthChecks(0)/command/value", "error.minLength"},
		{"ignored answers", `{"id":"/a","healthChecks":[{"ignoreHttp1xx":1}]}`, MessageJSON, "/healthChecks(0)/ignoreHttp1xx", "error.expected.jsboolean"},
		{"health index of mappings", `{"id":"/a","container":{"docker":{"image":"i"},"portMappings":[{}]},"networks":[{"mode":"container/bridge"}],"healthChecks":[{"portIndex":1}]}`, MessageObject, "/healthChecks(0)", badPortIndex},
		{"health check on one of two ports", `{"id":"/a","cmd":"x","ports":[0,0],"healthChecks":[{"protocol":"TCP","portIndex":2}]}`, MessageObject, "/healthChecks(0)", badPortIndex},
		{"check interval", `{"id":"/a","check":{"tcp":{},"intervalSeconds":-1}}`, MessageJSON, "/check/intervalSeconds", "error.min"},
		{"check time-out", `{"id":"/a","check":{"tcp":{},"timeoutSeconds":-1}}`, MessageJSON, "/check/timeoutSeconds", "error.min"},
		{"check delay", `{"id":"/a","check":{"tcp":{},"delaySeconds":-1}}`, MessageJSON, "/check/delaySeconds", "error.min"},
		{"check scheme", `{"id":"/a","check":{"http":{"scheme":"FTP"}}}`, MessageJSON, "/check/http/scheme", "error.unknown.enum.literal"},
		{"check port", `{"id":"/a","check":{"tcp":{"port":65536}}}`, MessageJSON, "/check/tcp/port", "error.max"},
		{"check without a command", `{"id":"/a","cmd":"x","check":{"exec":{"command":{}}}}`, MessageObject, "/check/exec/command", "exactly one of shell and argv"},
		{"readiness interval", `{"id":"/a","readinessChecks":[{"intervalSeconds":-1}]}`, MessageJSON, "/readinessChecks(0)/intervalSeconds", "error.min"},
		{"readiness status", `{"id":"/a","readinessChecks":[{"httpStatusCodesForReady":["200"]}]}`, MessageJSON, "/readinessChecks(0)/httpStatusCodesForReady(0)", "error.expected.jsnumber"},
		{"readiness response", `{"id":"/a","readinessChecks":[{"preserveLastResponse":1}]}`, MessageJSON, "/readinessChecks(0)/preserveLastResponse", "error.expected.jsboolean"},
		{"readiness time-out above the interval", `{"id":"/a","cmd":"x","readinessChecks":[{"portName":"default","intervalSeconds":5}]}`, MessageObject, "/readinessChecks(0)/timeoutSeconds", "must be less than intervalSeconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := create(tt.body, allFeatures())
			checkRefused(t, err, tt.message, tt.path, tt.text)
		})
	}
}

// TestSchemaAccepts are rows of the same that allow something.
func TestSchemaAccepts(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"half an upgrade strategy", `{"id":"/a","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":0.5}}`, `"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":1}`},
		{"the other half", `{"id":"/a","cmd":"x","upgradeStrategy":{"maximumOverCapacity":0.5}}`, `"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0.5}`},
		{"no half of it", `{"id":"/a","cmd":"x","upgradeStrategy":{}}`, `"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1}`},
		{"unlimited", `{"id":"/a","cmd":"x","resourceLimits":{"cpus":"unlimited","mem":256}}`, `"resourceLimits":{"cpus":"unlimited","mem":256}`},
		{"operators in lower case", `{"id":"/a","cmd":"x","constraints":[["rack","group_by","2"],["x","is",""]]}`, `"constraints":[["rack","GROUP_BY","2"],["x","IS",""]]`},
		{"both protocols in either order", `{"id":"/a","cmd":"x","portDefinitions":[{"protocol":"tcp,udp"}]}`, `"protocol":"udp,tcp"`},
		{"a path without a slash", `{"id":"/a","cmd":"x","healthChecks":[{"path":"up"}]}`, `"path":"/up"`},
		{"several checks by commands", `{"id":"/a","cmd":"x","healthChecks":[{"protocol":"COMMAND","command":{"value":"a"}},{"protocol":"COMMAND","command":{"value":"b"}}]}`, `"value":"b"`},
		{"a fixed port for a check of an app without ports", `{"id":"/a","cmd":"x","portDefinitions":[],"healthChecks":[{"port":80}]}`, `"port":80`},
		{"a volume with a profile is a mount", `{"id":"/a","role":"r","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","persistent":{"size":1,"profileName":"fast"}}]}}`, `"type":"mount"`},
		{"accepted roles named twice", `{"id":"/a","cmd":"x","acceptedResourceRoles":["*","*"]}`, `"acceptedResourceRoles":["*"]`},
		{"dependencies named twice", `{"id":"/a","cmd":"x","dependencies":["/b","b"]}`, `"dependencies":["/b"]`},
		{"half a strategy of an app with volumes", `{"id":"/a","role":"r","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":0.25},"container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","persistent":{"size":1}}]}}`, `"upgradeStrategy":{"minimumHealthCapacity":0.25,"maximumOverCapacity":0}`},
		{"an executor by path", `{"id":"/a","cmd":"x","executor":"/opt/run"}`, `"executor":"/opt/run"`},
		{"the command executor", `{"id":"/a","cmd":"x","executor":"//cmd"}`, `"executor":"//cmd"`},
		{"a partial unreachable strategy", `{"id":"/a","cmd":"x","unreachableStrategy":{"expungeAfterSeconds":5}}`, `"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":5}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := allFeatures()
			if strings.Contains(tt.body, `"role":"r"`) {
				s.DefaultRole = "r"
			}
			a, err := create(tt.body, s)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(mustJSON(a)); !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s in it", got, tt.want)
			}
		})
	}
}
