package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// podWith is a valid pod with more fields in it, and more in its one container.
func podWith(fields, container string) string {
	if container != "" {
		container = "," + container
	}
	if fields != "" {
		fields += ","
	}
	return fmt.Sprintf(`{"id":"/p",%s"containers":[{"name":"c","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"x"}}%s}]}`, fields, container)
}

func createPod(body string, s Settings) (*App, error) {
	draft, err := ParsePod([]byte(body))
	if err != nil {
		return nil, err
	}
	id, err := draft.ID()
	if err != nil {
		return nil, err
	}
	return draft.Create(id, nil, EmptyRoot().RulesFor(id, s))
}

func TestEveryRuleOfPods(t *testing.T) {
	const web = `"endpoints":[{"name":"web"}]`
	const bridge = `"networks":[{"mode":"container/bridge"}]`
	const several = `"networks":[{"mode":"container","name":"a"},{"mode":"container","name":"b"}]`
	const persistent = `"role":"r","volumes":[{"name":"v","persistent":{"size":10}}]`
	const mount = `"volumeMounts":[{"name":"v","mountPath":"d"}]`
	two := func(a, b string) string {
		return fmt.Sprintf(`{"id":"/p","containers":[{"name":"a","resources":{"cpus":1,"mem":1},"exec":{"command":{"shell":"x"}},%s},{"name":"b","resources":{"cpus":1,"mem":1},"exec":{"command":{"shell":"x"}},%s}]}`, a, b)
	}
	for _, tt := range []struct{ body, path, text string }{
		// Types and limits.
		{`{"containers":[]}`, "/id", codeMissing},
		{`{"id":"/p"}`, "/containers", codeMissing},
		{`{"id":"/p","containers":[]}`, "/containers", codeMinLength},
		{`{"id":"/p","containers":[{}` + strings.Repeat(",{}", maxContainers) + `]}`, "/containers", codeMaxLength},
		{`{"id":"/p","containers":{}}`, "/containers", codeArray},
		{`{"id":"/p","containers":[{}]}`, "/containers(0)/name", codeMissing},
		{`{"id":"/p","containers":[{"name":"c"}]}`, "/containers(0)/resources", codeMissing},
		{`{"id":"/p","containers":[{"name":"c","resources":{}}]}`, "/containers(0)/resources/cpus", codeMissing},
		{`{"id":"/p","containers":[{"name":"c","resources":{"cpus":1}}]}`, "/containers(0)/resources/mem", codeMissing},
		{`{"id":"/p","containers":[{"name":"_app","resources":{"cpus":1,"mem":1}}]}`, "/containers(0)/name", codePattern},
		{`{"id":"/p","containers":[{"name":"` + strings.Repeat("x", 64) + `","resources":{"cpus":1,"mem":1}}]}`, "/containers(0)/name", codeMaxLength},
		{podWith(`"scaling":{"kind":"elastic"}`, ""), "/scaling/kind", codeEnum},
		{podWith(`"scaling":{"instances":-1}`, ""), "/scaling/instances", codeMin},
		{podWith(`"scheduling":{"backoff":{"backoffFactor":0.5}}`, ""), "/scheduling/backoff/backoffFactor", codeMin},
		{podWith(`"scheduling":{"killSelection":"NO"}`, ""), "/scheduling/killSelection", codeEnum},
		{podWith(`"scheduling":{"placement":{"constraints":[{"fieldName":"a","operator":"NEAR"}]}}`, ""), "/scheduling/placement/constraints(0)/operator", codeEnum},
		{podWith(`"scheduling":{"placement":{"constraints":[{"operator":"IS"}]}}`, ""), "/scheduling/placement/constraints(0)/fieldName", codeMissing},
		{podWith("", `"lifecycle":{"killGracePeriodSeconds":-1}`), "/containers(0)/lifecycle/killGracePeriodSeconds", codeMin},
		{podWith("", `"endpoints":[{"name":"web","protocol":["sctp"]}]`), "/containers(0)/endpoints(0)/protocol(0)", codeEnum},
		{podWith("", `"endpoints":[{"name":"web","hostPort":70000}]`), "/containers(0)/endpoints(0)/hostPort", codeMax},
		{podWith("", `"image":{"kind":"APPC","id":"x"}`), "/containers(0)/image/kind", codeEnum},
		{podWith("", `"volumeMounts":[{"name":"v","mountPath":""}]`), "/containers(0)/volumeMounts(0)/mountPath", codeMinLength},
		{podWith("", `"exec":{}`), "/containers(0)/exec/command", codeMissing},

		// The pod.
		{strings.Replace(podWith("", ""), "/p", "p", 1), "/id", "Path needs to be absolute"},
		{strings.Replace(podWith("", ""), "/p", "/", 1), "/id", `is not the id of a pod: "/"`},
		{strings.Replace(podWith("", ""), "/p", "/P", 1), "/id", "is not a valid id"},
		{strings.Replace(podWith("", ""), "/p", "/a/restart", 1), "/id", "must not end in any of the following reserved keywords"},
		{podWith(`"environment":{"1A":"x"}`, ""), "/environment/1A", "must fully match regular expression"},
		{podWith("", `"environment":{"A-B":"x"}`), "/containers(0)/environment/A-B", "must fully match regular expression"},
		{podWith(`"environment":{"A":"\u0000"}`, ""), "/environment/A", "must not contain NUL"},
		{podWith(`"labels":{"a":"\u0000"}`, ""), "/labels/a", "must not contain NUL"},
		{podWith("", `"labels":{"a":"\u0000"}`), "/containers(0)/labels/a", "must not contain NUL"},
		{podWith(`"environment":{"A":{"secret":"s"}}`, ""), "/environment/A/secret", "references an undefined secret"},
		{podWith(`"secrets":{"s":{"source":"x"}}`, ""), "/secrets", "feature secrets is not enabled"},
		{podWith(`"secrets":{"s":{"source":""}}`, ""), "/secrets/s/source", "must not be empty"},
		{podWith("", `"image":{"kind":"DOCKER","id":"x","pullConfig":{"secret":"s"}}`), "/containers(0)/image/pullConfig/secret", "references an undefined secret"},
		{podWith(`"role":"other"`, ""), "/role", "got other, expected one of: *"},
		{podWith(`"scheduling":{"placement":{"acceptedResourceRoles":["x"]}}`, ""), "/scheduling/placement/acceptedResourceRoles", "acceptedResourceRoles can only contain *, got x"},
		{podWith(`"scheduling":{"placement":{"constraints":[{"fieldName":"a","operator":"UNIQUE","value":"x"}]}}`, ""), "/scheduling/placement/constraints(0)", "UNIQUE does not accept a value"},
		{podWith(`"scheduling":{"upgrade":{"minimumHealthCapacity":2}}`, ""), "/scheduling/upgrade/minimumHealthCapacity", "got 2.0, expected between 0.0 and 1.0"},
		{podWith(`"scheduling":{"upgrade":{"maximumOverCapacity":-1}}`, ""), "/scheduling/upgrade/maximumOverCapacity", "got -1.0, expected between 0.0 and 1.0"},
		{podWith(`"scheduling":{"unreachableStrategy":{"inactiveAfterSeconds":2,"expungeAfterSeconds":1}}`, ""), "/scheduling/unreachableStrategy/inactiveAfterSeconds", "must be less than or equal to expungeAfterSeconds"},
		{podWith(`"executorResources":{"cpus":0}`, ""), "/executorResources/cpus", "must be at least 0.01"},
		{podWith(`"executorResources":{"mem":31}`, ""), "/executorResources/mem", "must be at least 32"},
		{podWith(`"executorResources":{"disk":0}`, ""), "/executorResources/disk", "must be greater than 0"},
		{podWith(`"linuxInfo":{"ipcInfo":{"mode":"SHARE_PARENT","shmSize":1}}`, ""), "/linuxInfo/ipcInfo/shmSize", "only allowed with mode PRIVATE"},
		{podWith(`"networks":[{"mode":"host"},{"mode":"container/bridge"}]`, ""), "/networks", "Must have only host-networking"},
		{podWith(`"starling":{"daemon":true}`, ""), "/starling/daemon", "pods cannot be daemons"},

		// Containers.
		{`{"id":"/p","containers":[{"name":"c","resources":{"cpus":1,"mem":1}}]}`, "/containers(0)", "must have exec, or an image"},
		{strings.Replace(two(web, `"tty":true`), `"name":"b"`, `"name":"a"`, 1), "/containers(1)/name", "Container names must be unique"},
		{podWith("", `"exec":{"command":{}}`), "/containers(0)/exec/command", "must have exactly one of shell and argv"},
		{podWith("", `"exec":{"command":{"shell":"x","argv":["x"]}}`), "/containers(0)/exec/command", "must have exactly one of shell and argv"},
		{podWith("", `"resources":{"cpus":1,"mem":1,"gpus":1}`), "/containers(0)/resources/gpus", "must be 0: feature gpu_resources is not enabled"},
		{podWith("", `"resourceLimits":{"cpus":0.01}`), "/containers(0)/resourceLimits/cpus", "must be at least the 0.1 that are requested"},
		{podWith("", `"resourceLimits":{"mem":1}`), "/containers(0)/resourceLimits/mem", "must be at least the 32.0 that are requested"},
		{podWith(`"legacySharedCgroups":true`, `"resourceLimits":{"cpus":1}`), "/containers(0)/resourceLimits", "not allowed when legacySharedCgroups is true"},
		{podWith("", `"linuxInfo":{"seccomp":{"profileName":"x","unconfined":true}}`), "/containers(0)/linuxInfo/seccomp", "exclude each other"},
		{podWith("", `"artifacts":[{"uri":"http://[x"}]`), "/containers(0)/artifacts(0)/uri", "is not a valid URI"},

		// Endpoints.
		{two(web, web), "/containers(1)/endpoints(0)/name", "Endpoint names must be unique"},
		{two(`"endpoints":[{"name":"a","hostPort":80}]`, `"endpoints":[{"name":"b","hostPort":80}]`), "/containers(1)/endpoints(0)/hostPort", "hostPort must be unique"},
		{podWith(bridge, `"endpoints":[{"name":"a","containerPort":80},{"name":"b","containerPort":80}]`), "/containers(0)/endpoints(1)/containerPort", "containerPort must be unique"},
		{podWith("", `"endpoints":[{"name":"a","containerPort":80}]`), "/containers(0)/endpoints(0)/containerPort", "is not allowed when using host networking"},
		{podWith(bridge, web), "/containers(0)/endpoints(0)/containerPort", "is required when using container or bridge networking"},
		{podWith("", `"endpoints":[{"name":"a","protocol":["tcp","tcp"]}]`), "/containers(0)/endpoints(0)/protocol", "protocols must be unique"},
		{podWith("", `"endpoints":[{"name":"a","networkNames":["n"]}]`), "/containers(0)/endpoints(0)/networkNames(0)", "is not the name of a network of this pod"},
		{podWith(several, `"endpoints":[{"name":"a","containerPort":1,"hostPort":0}]`), "/containers(0)/endpoints(0)", "must name exactly one network"},

		// Checks.
		{podWith("", `"healthCheck":{}`), "/containers(0)/healthCheck", "must have exactly one of http, tcp and exec"},
		{podWith("", web+`,"healthCheck":{"http":{"endpoint":"web"},"tcp":{"endpoint":"web"}}`), "/containers(0)/healthCheck", "must have exactly one of http, tcp and exec"},
		{podWith("", `"healthCheck":{"http":{"endpoint":"web"}}`), "/containers(0)/healthCheck/http/endpoint", "is not the name of an endpoint of this container"},
		{podWith("", `"check":{"tcp":{"endpoint":"web"}}`), "/containers(0)/check/tcp/endpoint", "is not the name of an endpoint of this container"},
		{podWith("", `"healthCheck":{"exec":{"command":{}}}`), "/containers(0)/healthCheck/exec/command", "must have exactly one of shell and argv"},
		{podWith("", web+`,"healthCheck":{"tcp":{"endpoint":"web"},"timeoutSeconds":5,"intervalSeconds":5}`), "/containers(0)/healthCheck", "timeoutSeconds must be less than intervalSeconds"},

		// Volumes.
		{podWith(`"volumes":[{"name":"v"}]`, ""), "/volumes(0)", "volume must be referenced by at least one container"},
		{podWith("", mount), "/containers(0)/volumeMounts(0)/name", "is not the name of a volume of this pod"},
		{podWith(`"volumes":[{"name":"v"},{"name":"v"}]`, mount), "/volumes(1)/name", "Volume names must be unique"},
		{podWith(`"volumes":[{"name":"v","host":"/x","secret":"s"}]`, mount), "/volumes(0)", "must have at most one of host, secret and persistent"},
		{podWith(`"volumes":[{"name":"v","secret":"s"}]`, mount), "/volumes(0)/secret", "references an undefined secret"},
		{podWith(`"volumes":[{"name":"v"}]`, `"volumeMounts":[{"name":"v","mountPath":"d"},{"name":"v","mountPath":"d"}]`), "/containers(0)/volumeMounts(1)/mountPath", "another volume is mounted there"},
		{podWith(`"role":"r","volumes":[{"name":"v","persistent":{"size":0}}]`, mount), "/volumes(0)/persistent/size", "must be greater than 0"},
		{podWith(`"volumes":[{"name":"v","persistent":{"size":1}}]`, mount), "/role", "Resident pods cannot have the role *"},
		{podWith(persistent+`,"scheduling":{"upgrade":{"maximumOverCapacity":1}}`, mount), "/scheduling/upgrade/maximumOverCapacity", "expected 0.0 for pods with persistent volumes"},
		{podWith(persistent+`,"scheduling":{"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`, mount), "/scheduling/unreachableStrategy", "must be disabled"},
		{podWith(persistent+`,"scheduling":{"placement":{"acceptedResourceRoles":["r"]}}`, mount), "/scheduling/placement/acceptedResourceRoles", "must have `acceptedResourceRoles"},
	} {
		_, err := createPod(tt.body, DefaultSettings())
		invalid, ok := errors.AsType[*Invalid](err)
		if !ok || !slices.ContainsFunc(invalid.Details, func(d Detail) bool {
			return d.Path == tt.path && slices.ContainsFunc(d.Errors, func(e string) bool { return strings.Contains(e, tt.text) })
		}) {
			t.Errorf("%s\nis refused with %v, want %q at %s", tt.body, err, tt.text, tt.path)
		}
	}
}

func TestPodDefaultsAndWayBack(t *testing.T) {
	body := podWith(`"version":"never","networks":[{"mode":"container","name":"n"}],"volumes":[{"name":"v"},{"name":"h","host":"/x"}],
		"scheduling":{"placement":{"constraints":[{"fieldName":"rack","operator":"LIKE","value":"a.*"}]}}`,
		`"endpoints":[{"name":"web","containerPort":80}],"healthCheck":{"http":{"endpoint":"web","path":"ok"}},
		"volumeMounts":[{"name":"v","mountPath":"v"},{"name":"h","mountPath":"h"}]`)
	pod, err := createPod(body, DefaultSettings())
	if err != nil {
		t.Fatal(err)
	}
	if c := pod.Pod.Containers[0]; c.Endpoints[0].HostPort != nil || c.HealthCheck.HTTP.Path != "/ok" || c.HealthCheck.GracePeriodSeconds != 300 {
		t.Errorf("container %+v", c)
	}
	if pod.CPUs != 0.1 || pod.Mem != 32 || *pod.ExecutorResources != (ExecutorResources{0.1, 32, 10}) || len(pod.ServicePorts()) != 0 || len(pod.Ports()) != 1 {
		t.Errorf("pod %+v", pod)
	}
	shown, err := json.Marshal(pod.PodDefinition())
	if err != nil {
		t.Fatal(err)
	}
	again, err := createPod(string(shown), DefaultSettings())
	if err != nil || !SameConfig(pod, again) {
		t.Errorf("what is shown makes another pod: %v\n%s", err, shown)
	}
	stored, err := json.Marshal(pod)
	read := new(App)
	if err != nil || json.Unmarshal(stored, read) != nil || !SameConfig(pod, read) {
		t.Errorf("what is stored makes another pod: %v\n%s", err, stored)
	}
	if made := pod.PodDefinition().App(); !SameConfig(pod, made) {
		t.Errorf("the definition makes another pod: %+v", made)
	}
}
