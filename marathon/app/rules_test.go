package app

import (
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	const commandText = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."
	docker := func(rest string) string {
		return `{"id":"/a","container":{"type":"DOCKER","docker":{"image":"i"}` + rest + `}}`
	}
	volume := func(volume string) string {
		return `{"id":"/a","role":"r","cmd":"x","container":{"type":"MESOS","volumes":[` + volume + `]}}`
	}
	tests := []struct {
		name, body, path, text string
	}{
		// Ids, section 3 of the API.
		{"upper case", `{"id":"/A","cmd":"x"}`, "/id", `segment "A"`},
		{"underscore", `{"id":"/a_b","cmd":"x"}`, "/id", `segment "a_b"`},
		{"dash at the end", `{"id":"/a-","cmd":"x"}`, "/id", `segment "a-"`},
		{"dash at the beginning", `{"id":"/-a","cmd":"x"}`, "/id", `segment "-a"`},
		{"empty label", `{"id":"/a..b","cmd":"x"}`, "/id", `segment "a..b"`},
		{"root", `{"id":"/","cmd":"x"}`, "/id", "is not the id of an app"},
		{"empty id", `{"id":"","cmd":"x"}`, "/id", "is not the id of an app"},
		{"restart", `{"id":"/a/restart","cmd":"x"}`, "/id", "reserved keywords"},
		{"tasks", `{"id":"/a/tasks","cmd":"x"}`, "/id", "reserved keywords"},
		{"versions", `{"id":"/versions/","cmd":"x"}`, "/id", "reserved keywords"},
		{"dot at the end", `{"id":"/a/.","cmd":"x"}`, "/id", "reserved keywords"},
		{"dots at the end", `{"id":"/a/b/..","cmd":"x"}`, "/id", "reserved keywords"},
		{"dependency", `{"id":"/a","cmd":"x","dependencies":["b","B"]}`, "/dependencies(1)", `segment "B"`},

		// 2.1 Command.
		{"nothing to run", `{"id":"/a"}`, "/", commandText},
		{"cmd and args", `{"id":"/a","cmd":"x","args":["x"]}`, "/", commandText},
		{"cmd and args with an image", `{"id":"/a","cmd":"x","args":["x"],"container":{"docker":{"image":"i"}}}`, "/", commandText},

		{"NUL in cmd", `{"id":"/a","cmd":"a\u0000b"}`, "/cmd", `must not contain control characters`},
		{"bell in cmd", `{"id":"/a","cmd":"a\u0007b"}`, "/cmd", `'\a' at 1`},
		{"NUL in args", `{"id":"/a","args":["a","b\u0000"]}`, "/args(1)", `must not contain control characters`},
		{"variable without name", `{"id":"/a","cmd":"x","env":{"":"v"}}`, "/env", "must not be empty"},
		{"variable with = in its name", `{"id":"/a","cmd":"x","env":{"a=b":"v"}}`, "/env", `neither = nor NUL: "a=b"`},
		{"variable with NUL in its name", `{"id":"/a","cmd":"x","env":{"a\u0000":"v"}}`, "/env", `neither = nor NUL`},
		{"variable with NUL in its value", `{"id":"/a","cmd":"x","env":{"A":"v\u0000"}}`, "/env/A", `must not contain NUL`},
		{"label with NUL in its value", `{"id":"/a","cmd":"x","labels":{"l":"v\u0000"}}`, "/labels/l", `must not contain NUL`},

		// 2.2 Old forms.
		{"uris and fetch", `{"id":"/a","cmd":"x","uris":["u"],"fetch":[{"uri":"u"}]}`, "/uris", "may not be set in conjunction with fetch"},
		{"ports and other definitions", `{"id":"/a","cmd":"x","ports":[1],"portDefinitions":[{"port":2}]}`, "/", "cannot specify both ports and port definitions"},
		{"ports and more definitions", `{"id":"/a","cmd":"x","ports":[1],"portDefinitions":[{"port":1},{"port":2}]}`, "/", "cannot specify both ports and port definitions"},
		{"ports twice", `{"id":"/a","cmd":"x","ports":[1,0,0,1]}`, "/ports", "ports must be unique"},
		{"network NONE", `{"id":"/a","container":{"docker":{"image":"i","network":"NONE"}}}`, "/container/docker/network", "unsupported docker network type"},
		{
			"two kinds of mappings", `{"id":"/a","networks":[{"mode":"container/bridge"}],"container":{"docker":{"image":"i","portMappings":[{}]},"portMappings":[{}]}}`,
			"/container/docker/portMappings", "cannot be combined with container.portMappings",
		},
		{
			"discovery with DOCKER", `{"id":"/a","ipAddress":{"discovery":{"ports":[{"number":1}]}},"container":{"docker":{"image":"i"}}}`,
			"/ipAddress/discovery/ports", "not supported for container type DOCKER",
		},
		{"address and ports", `{"id":"/a","cmd":"x","ipAddress":{},"ports":[0]}`, "/", "cannot specify both an IP address and port"},
		{"address and port definitions", `{"id":"/a","cmd":"x","ipAddress":{},"portDefinitions":[{}]}`, "/", "cannot specify both an IP address and port"},
		{"networks and address", `{"id":"/a","cmd":"x","ipAddress":{},"networks":[]}`, "/", "must not specify both networks and ipAddress"},
		{
			"networks and docker network", `{"id":"/a","networks":[{"mode":"host"}],"container":{"docker":{"image":"i","network":"HOST"}}}`,
			"/", "must not specify both container.docker.network and networks",
		},
		{"credential", `{"id":"/a","container":{"docker":{"image":"i","credential":{"principal":"p"}}}}`, "/container/docker/credential", "not supported"},
		{"MESOS with docker network", `{"id":"/a","container":{"type":"MESOS","docker":{"image":"i","network":"HOST"}}}`, "/container/docker/network", "not allowed for container type MESOS"},
		{
			"MESOS with parameters", `{"id":"/a","container":{"type":"MESOS","docker":{"image":"i","parameters":[{"key":"k","value":"v"}]}}}`,
			"/container/docker/parameters", "not allowed for container type MESOS",
		},
		{
			"MESOS with docker mappings", `{"id":"/a","container":{"type":"MESOS","docker":{"image":"i","portMappings":[{}]}}}`,
			"/container/docker/portMappings", "not allowed for container type MESOS",
		},
		{"artifact store", `{"id":"/a","cmd":"x","storeUrls":["http://x/y"]}`, "/storeUrls", "artifact store is not enabled"},
		{"mappings in host mode", `{"id":"/a","container":{"docker":{"image":"i"},"portMappings":[{}]}}`, "/container/portMappings", "portMappings are not allowed with host-networking"},
		{
			"definitions in bridge mode", `{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge"}],"portDefinitions":[{}]}`,
			"/portDefinitions", "portDefinitions are only allowed with host-networking",
		},

		// 2.4 Upgrade strategy.
		{
			"health capacity above 1", `{"id":"/a","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":2,"maximumOverCapacity":0}}`,
			"/upgradeStrategy/minimumHealthCapacity", "got 2.0, expected between 0.0 and 1.0",
		},
		{
			"over capacity below 0", `{"id":"/a","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":-0.5}}`,
			"/upgradeStrategy/maximumOverCapacity", "got -0.5, expected between 0.0 and 1.0",
		},
		{
			"resident over capacity", `{"id":"/a","role":"r","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},` +
				`"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`,
			"/upgradeStrategy/maximumOverCapacity", "expected 0.0 for resident apps",
		},
		{"single instance twice", `{"id":"/a","cmd":"x","instances":2,"labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"}}`, "/", "Single instance app may only have one instance"},
		{
			"single instance upgraded beside itself", `{"id":"/a","cmd":"x","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":1}}`,
			"/upgradeStrategy/maximumOverCapacity", "expected 0.0 for single instance apps",
		},
		{
			"single instance kept up", `{"id":"/a","cmd":"x","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"},"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0}}`,
			"/upgradeStrategy/minimumHealthCapacity", "expected 0.0 for single instance apps",
		},

		// 2.5 Unreachable strategy.
		{
			"inactive after expunged", `{"id":"/a","cmd":"x","unreachableStrategy":{"inactiveAfterSeconds":2,"expungeAfterSeconds":1}}`,
			"/unreachableStrategy/inactiveAfterSeconds", "must be less than or equal",
		},
		{
			"half a strategy is filled with 0", `{"id":"/a","cmd":"x","unreachableStrategy":{"inactiveAfterSeconds":2}}`,
			"/unreachableStrategy/inactiveAfterSeconds", "got 2 and 0",
		},
		{
			"resident is never expunged", `{"id":"/a","role":"r","cmd":"x","unreachableStrategy":{},"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`,
			"/unreachableStrategy", "must be disabled for resident apps",
		},

		// 2.7 Volumes.
		{"host volume without mode", volume(`{"containerPath":"p","hostPath":"/p"}`), "/container/volumes(0)/mode", "must be RO or RW"},
		{"host volume without host path", volume(`{"containerPath":"p","hostPath":"","mode":"RO"}`), "/container/volumes(0)/hostPath", "must not be empty"},
		{"volume without container path", volume(`{"containerPath":"","hostPath":"/p","mode":"RO"}`), "/container/volumes(0)/containerPath", "must not be empty"},
		{"volume of no kind", volume(`{"containerPath":"p","mode":"RO"}`), "/container/volumes(0)", "exactly one of"},
		{"volume of two kinds", volume(`{"containerPath":"p","mode":"RO","hostPath":"/p","secret":"s"}`), "/container/volumes(0)", "exactly one of"},
		{"persistent volume's path", volume(`{"containerPath":"/p","mode":"RW","persistent":{"size":1}}`), "/container/volumes(0)/containerPath", "one relative path segment"},
		{"persistent volume up", volume(`{"containerPath":"..","mode":"RW","persistent":{"size":1}}`), "/container/volumes(0)/containerPath", "one relative path segment"},
		{"persistent volume to read", volume(`{"containerPath":"p","mode":"RO","persistent":{"size":1}}`), "/container/volumes(0)/mode", "must be RW"},
		{"persistent volume without size", volume(`{"containerPath":"p","mode":"RW","persistent":{"size":0}}`), "/container/volumes(0)/persistent/size", "greater than 0"},
		{"maximum size on root", volume(`{"containerPath":"p","mode":"RW","persistent":{"size":1,"maxSize":2}}`), "/container/volumes(0)/persistent/maxSize", "only allowed for type mount"},
		{"maximum size below size", volume(`{"containerPath":"p","mode":"RW","persistent":{"type":"mount","size":2,"maxSize":2}}`), "/container/volumes(0)/persistent/maxSize", "greater than size"},
		{"constraint on root", volume(`{"containerPath":"p","mode":"RW","persistent":{"size":1,"constraints":[["path","LIKE","x"]]}}`), "/container/volumes(0)/persistent/constraints(0)", "not allowed for type root"},
		{
			"constraint on something else", volume(`{"containerPath":"p","mode":"RW","persistent":{"type":"path","size":1,"constraints":[["disk","LIKE","x"]]}}`),
			"/container/volumes(0)/persistent/constraints(0)", "only path with LIKE or UNLIKE",
		},
		{"external volume without name", volume(`{"containerPath":"p","mode":"RW","external":{"provider":"dvdi","options":{"dvdi/driver":"d"}}}`), "/container/volumes(0)/external/name", "must not be empty"},
		{"external volume of nobody", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"nfs"}}`), "/container/volumes(0)/external/provider", "must be dvdi or csi"},
		{"external volume without driver", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"dvdi"}}`), "/container/volumes(0)/external/options", "dvdi/driver"},
		{
			"external volume's option", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d","x":"y"}}}`),
			"/container/volumes(0)/external/options/x", "prefix/name",
		},
		{"external volume twice", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}},` +
			`{"containerPath":"q","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}`), "/container/volumes(1)/external/name", "must be unique"},
		{
			"external volume with two instances", `{"id":"/a","cmd":"x","instances":2,"container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}}`,
			"/container/volumes(0)/external", "may only have one instance",
		},
		{
			"external volume's size with DOCKER", docker(`,"volumes":[{"containerPath":"p","mode":"RW","external":{"name":"v","size":1,"provider":"dvdi","options":{"dvdi/driver":"d"}}}]`),
			"/container/volumes(0)/external/size", "not allowed for container type DOCKER",
		},
		{"CSI without plugin", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"csi","options":{}}}`), "/container/volumes(0)/external/options/pluginName", "must not be empty"},
		{
			"CSI without access mode", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"csi","options":{"pluginName":"p"}}}`),
			"/container/volumes(0)/external/options/capability/accessMode", "must be one of",
		},
		{
			"CSI without access type", volume(`{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"csi","options":{"pluginName":"p","capability":{"accessMode":"SINGLE_NODE_WRITER"}}}}`),
			"/container/volumes(0)/external/options/capability/accessType", "must be block or mount",
		},
		{"secret volume of nothing", volume(`{"containerPath":"p","secret":"s"}`), "/container/volumes(0)/secret", "references an undefined secret"},
		{"secret volume without name", volume(`{"containerPath":"p","secret":""}`), "/container/volumes(0)/secret", "must not be empty"},

		// 2.8 Environment and secrets.
		{"undefined secret", `{"id":"/a","cmd":"x","env":{"X":{"secret":"s"}}}`, "/env/X/secret", "references an undefined secret"},
		{"variable without name", `{"id":"/a","cmd":"x","env":{"":"y"}}`, "/env", "must not be empty"},
		{"secret from nowhere", `{"id":"/a","cmd":"x","secrets":{"s":{"source":""}}}`, "/secrets/s/source", "must not be empty"},

		// 2.9 Roles.
		{"unknown role", `{"id":"/g/a","cmd":"x","role":"other"}`, "/role", "got other, expected one of: *, g"},
		{"role that is no group", `{"id":"/a","cmd":"x","role":"a"}`, "/role", "got a, expected one of: *"},
		{"resident with role *", `{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`, "/role", "cannot have the role *"},
		{"no accepted roles", `{"id":"/a","cmd":"x","acceptedResourceRoles":[]}`, "/acceptedResourceRoles", "must not be empty"},
		{"another accepted role", `{"id":"/a","cmd":"x","acceptedResourceRoles":["*","prod"]}`, "/acceptedResourceRoles", "can only contain *, got prod"},
		{
			"resident's accepted roles", `{"id":"/a","role":"r","cmd":"x","acceptedResourceRoles":["r"],"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`,
			"/acceptedResourceRoles", "A resident app must have",
		},

		// 2.10 Labels.
		{
			"migration version", `{"id":"/a","cmd":"x","labels":{"DCOS_MIGRATION_API_VERSION":"v2","DCOS_MIGRATION_API_PATH":"/","DCOS_PACKAGE_FRAMEWORK_NAME":"f"}}`,
			"/labels/DCOS_MIGRATION_API_VERSION", "must be v1",
		},
		{"migration path", `{"id":"/a","cmd":"x","labels":{"DCOS_MIGRATION_API_VERSION":"v1","DCOS_PACKAGE_FRAMEWORK_NAME":"f"}}`, "/labels/DCOS_MIGRATION_API_PATH", "must not be empty"},
		{"migration name", `{"id":"/a","cmd":"x","labels":{"DCOS_MIGRATION_API_VERSION":"v1","DCOS_MIGRATION_API_PATH":"/"}}`, "/labels/DCOS_PACKAGE_FRAMEWORK_NAME", "must not be empty"},
		{"GPU behaviour", `{"id":"/a","cmd":"x","labels":{"GPU_SCHEDULING_BEHAVIOR":"greedy"}}`, "/labels/GPU_SCHEDULING_BEHAVIOR", "restricted or unrestricted"},

		// 3 Container.
		{"DOCKER without image", `{"id":"/a","cmd":"x","container":{"type":"DOCKER"}}`, "/container/docker", "must be defined"},
		{"DOCKER with an empty image", `{"id":"/a","cmd":"x","container":{"docker":{"image":""}}}`, "/container/docker/image", "must not be empty"},
		{"GPUs with DOCKER", `{"id":"/a","gpus":1,"container":{"docker":{"image":"i"}}}`, "/gpus", "not available to container type DOCKER"},
		{"privileged MESOS", `{"id":"/a","container":{"type":"MESOS","docker":{"image":"i","privileged":true}}}`, "/container/docker/privileged", "not allowed for container type MESOS"},
		{"pull config with DOCKER", `{"id":"/a","secrets":{"s":{"source":"x"}},"container":{"docker":{"image":"i","pullConfig":{"secret":"s"}}}}`, "/container/docker/pullConfig", "not allowed for container type DOCKER"},
		{"pull config of nothing", `{"id":"/a","container":{"type":"MESOS","docker":{"image":"i","pullConfig":{"secret":"s"}}}}`, "/container/docker/pullConfig/secret", "references an undefined secret"},
		{"linux info with DOCKER", docker(`,"linuxInfo":{}`), "/container/linuxInfo", "not allowed for container type DOCKER"},
		{"seccomp both ways", `{"id":"/a","cmd":"x","container":{"type":"MESOS","linuxInfo":{"seccomp":{"profileName":"p","unconfined":true}}}}`, "/container/linuxInfo/seccomp", "exclude each other"},
		{"shared memory of the parent", `{"id":"/a","cmd":"x","container":{"type":"MESOS","linuxInfo":{"ipcInfo":{"mode":"SHARE_PARENT","shmSize":1}}}}`, "/container/linuxInfo/ipcInfo/shmSize", "only allowed with mode PRIVATE"},
		{
			"mapping names", `{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"name":"w"},{"name":"w"}]}}`,
			"/container/portMappings", "Port names must be unique.",
		},
		{
			"mapping to a strange network", `{"id":"/a","cmd":"x","networks":[{"name":"n"}],"container":{"type":"MESOS","portMappings":[{"networkNames":["m"]}]}}`,
			"/container/portMappings(0)/networkNames(0)", `"m" is not the name of a network`,
		},
		{
			"mapping to any of several networks", `{"id":"/a","cmd":"x","networks":[{"name":"n"},{"name":"m"}],"container":{"type":"MESOS","portMappings":[{"hostPort":0}]}}`,
			"/container/portMappings(0)", "must name exactly one network",
		},
		{"limit below the request", `{"id":"/a","cmd":"x","cpus":2,"resourceLimits":{"cpus":1}}`, "/resourceLimits/cpus", "at least the 2.0"},
		{"memory limit below the request", `{"id":"/a","cmd":"x","resourceLimits":{"mem":1}}`, "/resourceLimits/mem", "at least the 128.0"},

		// 4 Networks and port definitions.
		{"host and bridge", `{"id":"/a","cmd":"x","networks":[{"mode":"host"},{"mode":"container/bridge"}]}`, "/networks", "Must have only host-networking"},
		{"two bridges", `{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge"},{"mode":"container/bridge"}]}`, "/networks", "no more than one host or bridge"},
		{"one network twice", `{"id":"/a","cmd":"x","networks":[{"name":"n"},{"name":"n"}]}`, "/networks", "Network names must be unique."},
		{"host with name", `{"id":"/a","cmd":"x","networks":[{"mode":"host","name":"n"}]}`, "/networks(0)", "neither name nor labels"},
		{"host with labels", `{"id":"/a","cmd":"x","networks":[{"mode":"host","labels":{"a":"b"}}]}`, "/networks(0)", "neither name nor labels"},
		{"bridge with name", `{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge","name":"n"}]}`, "/networks(0)/name", "a bridge network has no name"},
		{"DOCKER in two networks", `{"id":"/a","networks":[{"name":"n"},{"name":"m"}],"container":{"docker":{"image":"i"},"portMappings":[]}}`, "/networks", "at most one container network"},
		{"network without name", `{"id":"/a","cmd":"x","networks":[{}]}`, "/networks(0)/name", "Network name must be specified when container network is selected."},
		{"network name", `{"id":"/a","cmd":"x","networks":[{"name":"N"}]}`, "/networks(0)/name", "must fully match"},
		{"long network name", `{"id":"/a","cmd":"x","networks":[{"name":"` + strings.Repeat("n", 64) + `"}]}`, "/networks(0)/name", "at most 63"},
		{"definitions of one port", `{"id":"/a","cmd":"x","portDefinitions":[{"port":1},{"port":1}]}`, "/portDefinitions", "Ports must be unique."},
		{"definitions of one name", `{"id":"/a","cmd":"x","portDefinitions":[{"name":"w"},{"name":"w"}]}`, "/portDefinitions", "Port names must be unique."},
		{"uri", `{"id":"/a","cmd":"x","fetch":[{"uri":"http://[x"}]}`, "/fetch(0)/uri", "is not a valid URI"},

		// 5 Constraints.
		{"one field", `{"id":"/a","cmd":"x","constraints":[["hostname","UNIQUE"],["hostname"]]}`, "/constraints(1)", "Each constraint must have either 2 or 3 fields"},
		{"four fields", `{"id":"/a","cmd":"x","constraints":[["a","b","c","d"]]}`, "/constraints(0)", "Each constraint must have either 2 or 3 fields"},
		{"operator", `{"id":"/a","cmd":"x","constraints":[["hostname","NEAR"]]}`, "/constraints(0)", "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"},
		{"no field", `{"id":"/a","cmd":"x","constraints":[["","UNIQUE"]]}`, "/constraints(0)", "missing field for constraint declaration"},
		{"unique with value", `{"id":"/a","cmd":"x","constraints":[["hostname","UNIQUE","x"]]}`, "/constraints(0)", "UNIQUE does not accept a value"},
		{"group by words", `{"id":"/a","cmd":"x","constraints":[["rack","GROUP_BY","x"]]}`, "/constraints(0)", "GROUP BY must define an integer value or else no value at all"},
		{"max per nothing", `{"id":"/a","cmd":"x","constraints":[["rack","MAX_PER"]]}`, "/constraints(0)", "MAX_PER requires an integer value"},
		{"max per a fraction", `{"id":"/a","cmd":"x","constraints":[["rack","MAX_PER","1.5"]]}`, "/constraints(0)", "MAX_PER requires an integer value"},
		{"like nothing", `{"id":"/a","cmd":"x","constraints":[["rack","LIKE",""]]}`, "/constraints(0)", "LIKE and UNLIKE require a non-empty, regular expression value"},
		{"unlike nothing", `{"id":"/a","cmd":"x","constraints":[["rack","unlike"]]}`, "/constraints(0)", "LIKE and UNLIKE require a non-empty, regular expression value"},
		{"like no expression", `{"id":"/a","cmd":"x","constraints":[["rack","LIKE","("]]}`, "/constraints(0)", "is not a valid regular expression"},
		{"like what RE2 cannot", `{"id":"/a","cmd":"x","constraints":[["rack","LIKE","(?=x)"]]}`, "/constraints(0)", "is not a valid regular expression"},
		{"like what is none by itself", `{"id":"/a","cmd":"x","constraints":[["rack","LIKE","a)(?:b"]]}`, "/constraints(0)", "is not a valid regular expression"},
		{"is a range", `{"id":"/a","cmd":"x","constraints":[["rack","IS","[1-5]"]]}`, "/constraints(0)", "IS only supports Mesos text and float values"},

		// 6 Checks.
		{"health port index", `{"id":"/a","cmd":"x","healthChecks":[{"portIndex":1}]}`, "/healthChecks(0)", badPortIndex},
		{"health check without any port", `{"id":"/a","cmd":"x","portDefinitions":[],"healthChecks":[{}]}`, "/healthChecks(0)", badPortIndex},
		{"agent's health port index", `{"id":"/a","cmd":"x","healthChecks":[{"protocol":"MESOS_TCP","portIndex":1}]}`, "/healthChecks(0)", badPortIndex},
		{"two Mesos checks", `{"id":"/a","cmd":"x","healthChecks":[{"protocol":"MESOS_TCP"},{"protocol":"MESOS_HTTP"}]}`, "/healthChecks", "at most one Mesos health check"},
		{"Mesos and command checks", `{"id":"/a","cmd":"x","healthChecks":[{"protocol":"MESOS_TCP"},{"protocol":"COMMAND","command":{"value":"x"}}]}`, "/healthChecks", "at most one Mesos health check"},
		{"command for HTTP", `{"id":"/a","cmd":"x","healthChecks":[{"command":{"value":"x"}}]}`, "/healthChecks(0)/command", "only allowed with protocol COMMAND"},
		{"COMMAND without command", `{"id":"/a","cmd":"x","healthChecks":[{"protocol":"COMMAND"}]}`, "/healthChecks(0)/command", "must be defined"},
		{"IPv6 by Marathon", `{"id":"/a","container":{"docker":{"image":"i"}},"healthChecks":[{"ipProtocol":"IPv6"}]}`, "/healthChecks(0)/ipProtocol", "only supported by MESOS_*"},
		{"IPv6 without DOCKER", `{"id":"/a","cmd":"x","healthChecks":[{"protocol":"MESOS_TCP","ipProtocol":"IPv6"}]}`, "/healthChecks(0)/ipProtocol", "only supported by MESOS_*"},
		{"check of no kind", `{"id":"/a","cmd":"x","check":{}}`, "/check", "exactly one of http, tcp and exec"},
		{"check of two kinds", `{"id":"/a","cmd":"x","check":{"tcp":{},"http":{}}}`, "/check", "exactly one of http, tcp and exec"},
		{"check with DOCKER", `{"id":"/a","container":{"docker":{"image":"i"}},"check":{"tcp":{}}}`, "/check", "not supported for container type DOCKER"},
		{"check's port", `{"id":"/a","cmd":"x","check":{"tcp":{"portIndex":2}}}`, "/check/tcp", badPortIndex},
		{"check's http port", `{"id":"/a","cmd":"x","check":{"http":{"portIndex":2}}}`, "/check/http", badPortIndex},
		{"check's command", `{"id":"/a","cmd":"x","check":{"exec":{"command":{"shell":"x","argv":["x"]}}}}`, "/check/exec/command", "exactly one of shell and argv"},
		{"two readiness checks", `{"id":"/a","cmd":"x","readinessChecks":[{"portName":"default"},{"portName":"default"}]}`, "/readinessChecks", "more than 1"},
		{"readiness port", `{"id":"/a","cmd":"x","readinessChecks":[{"portName":"x"}]}`, "/readinessChecks(0)/portName", "No port definition reference for portName x"},
		{
			"readiness time-out", `{"id":"/a","cmd":"x","readinessChecks":[{"portName":"default","intervalSeconds":10,"timeoutSeconds":10}]}`,
			"/readinessChecks(0)/timeoutSeconds", "must be less than intervalSeconds",
		},
	}
	settings := allFeatures()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := settings
			if strings.Contains(tt.body, `"role":"r"`) {
				s.DefaultRole = "r"
			}
			_, err := create(tt.body, s)
			checkRefused(t, err, MessageObject, tt.path, tt.text)
		})
	}
}

// What Marathon refuses as long as nobody switches it on.
func TestFeaturesAreOffByDefault(t *testing.T) {
	tests := []struct{ name, body, path, text string }{
		{"gpus", `{"id":"/a","cmd":"x","gpus":1}`, "/gpus", "gpu_resources is not enabled"},
		{"secrets", `{"id":"/a","cmd":"x","secrets":{"s":{"source":"x"}},"env":{"X":{"secret":"s"}}}`, "/secrets", "secrets is not enabled"},
		{
			"secret volume", `{"id":"/a","cmd":"x","secrets":{"s":{"source":"x"}},"container":{"type":"MESOS","volumes":[{"containerPath":"p","secret":"s"}]}}`,
			"/container/volumes(0)/secret", "secrets is not enabled",
		},
		{
			"external volume", `{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}}`,
			"/container/volumes(0)/external", "external_volumes is not enabled",
		},
		{"residency", `{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`, "/role", "cannot have the role *"},
		{"accepted roles", `{"id":"/a","cmd":"x","acceptedResourceRoles":["prod"]}`, "/acceptedResourceRoles", "got prod"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := create(tt.body, DefaultSettings())
			checkRefused(t, err, MessageObject, tt.path, tt.text)
		})
	}
}

func TestResidentUpdates(t *testing.T) {
	const resident = `{"id":"/a","role":"r","cmd":"x","portDefinitions":[{"port":0}],"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}}`
	s := allFeatures()
	s.DefaultRole = "r"
	a, err := create(resident, s)
	if err != nil {
		t.Fatal(err)
	}
	root, err := Commit(EmptyRoot(), EmptyRoot().WithApp(a), Change{Now: testNow, Settings: s})
	if err != nil {
		t.Fatal(err)
	}
	old := root.App("/a")
	tests := []struct{ name, update, path, text string }{
		{"volumes", `{"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":2}}]}}`, "/", "Persistent volumes can not be changed!"},
		{"no volumes", `{"container":null,"container":{"type":"MESOS"}}`, "/", "Persistent volumes can not be changed!"},
		{"cpus", `{"cpus":2}`, "/cpus", "may not change"},
		{"mem", `{"mem":2}`, "/mem", "may not change"},
		{"disk", `{"disk":2}`, "/disk", "may not change"},
		{"gpus", `{"gpus":2}`, "/gpus", "may not change"},
		{"requirePorts", `{"requirePorts":true}`, "/requirePorts", "may not change"},
		{"ports", `{"portDefinitions":[{},{}]}`, "/portDefinitions", "may not change"},
		{"role", `{"role":"g"}`, "/role", "force=true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseUpdate([]byte(tt.update))
			if err != nil {
				t.Fatal(err)
			}
			rules := root.RulesFor("/a", s)
			rules.Roles.Allowed = append(rules.Roles.Allowed, "g")
			_, err = d.Update(old, rules)
			checkRefused(t, err, MessageObject, tt.path, tt.text)
		})
	}
	d, err := ParseUpdate([]byte(`{"cmd":"y","instances":3}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Update(old, root.RulesFor("/a", s)); err != nil {
		t.Errorf("an update of the command is refused: %v", err)
	}
}
