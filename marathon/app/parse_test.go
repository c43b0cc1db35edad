package app

import (
	"errors"
	"strings"
	"testing"
)

func TestTypesAndLimits(t *testing.T) {
	tests := []struct {
		name, body, path, code string
	}{
		{"id is required", `{"cmd":"x"}`, "/id", "error.path.missing"},
		{"null is absent", `{"id":null,"cmd":"x"}`, "/id", "error.path.missing"},
		{"not an object", `[]`, "/", "error.expected.jsobject"},
		{"string for id", `{"id":1}`, "/id", "error.expected.jsstring"},
		{"number for cpus", `{"id":"/a","cpus":"one"}`, "/cpus", "error.expected.jsnumber"},
		{"numeric string for cpus", `{"id":"/a","cpus":"1"}`, "/cpus", "error.expected.jsnumber"},
		{"cpus out of range of numbers", `{"id":"/a","cpus":1e999}`, "/cpus", "error.expected.jsnumberformatexception"},
		{"negative cpus", `{"id":"/a","cpus":-0.1}`, "/cpus", "error.min"},
		{"negative mem", `{"id":"/a","mem":-1}`, "/mem", "error.min"},
		{"negative disk", `{"id":"/a","disk":-1}`, "/disk", "error.min"},
		{"negative gpus", `{"id":"/a","gpus":-1}`, "/gpus", "error.min"},
		{"negative instances", `{"id":"/a","instances":-1}`, "/instances", "error.min"},
		{"fraction of an instance", `{"id":"/a","instances":1.5}`, "/instances", "error.expected.jsnumberformatexception"},
		{"instances beyond 32 bits", `{"id":"/a","instances":3000000000}`, "/instances", "error.expected.jsnumberformatexception"},
		{"instances far beyond", `{"id":"/a","instances":1e300}`, "/instances", "error.expected.jsnumberformatexception"},
		{"bool", `{"id":"/a","requirePorts":"yes"}`, "/requirePorts", "error.expected.jsboolean"},
		{"list", `{"id":"/a","args":"x"}`, "/args", "error.expected.jsarray"},
		{"element of a list", `{"id":"/a","args":["x",1]}`, "/args(1)", "error.expected.jsstring"},
		{"map", `{"id":"/a","labels":["x"]}`, "/labels", "error.expected.jsobject"},
		{"value of a map", `{"id":"/a","labels":{"x":1}}`, "/labels/x", "error.expected.jsstring"},
		{"environment value", `{"id":"/a","env":{"X":1}}`, "/env/X", "error.expected.jsstring"},
		{"environment secret without name", `{"id":"/a","env":{"X":{}}}`, "/env/X/secret", "error.path.missing"},
		{"executor", `{"id":"/a","executor":"//x"}`, "/executor", "error.pattern"},
		{"constraints are lists", `{"id":"/a","constraints":["hostname:UNIQUE"]}`, "/constraints(0)", "error.expected.jsarray"},
		{"constraints are lists of texts", `{"id":"/a","constraints":[["x","MAX_PER",1]]}`, "/constraints(0)(2)", "error.expected.jsstring"},
		{"empty role", `{"id":"/a","acceptedResourceRoles":[""]}`, "/acceptedResourceRoles(0)", "error.minLength"},
		{"container type", `{"id":"/a","container":{"type":"LXC"}}`, "/container/type", "error.unknown.enum.literal"},
		{"image is required", `{"id":"/a","container":{"docker":{}}}`, "/container/docker/image", "error.path.missing"},
		{
			"parameter without value", `{"id":"/a","container":{"docker":{"image":"i","parameters":[{"key":"k"}]}}}`,
			"/container/docker/parameters(0)/value", "error.path.missing",
		},
		{"mapping's port", `{"id":"/a","container":{"portMappings":[{"containerPort":70000}]}}`, "/container/portMappings(0)/containerPort", "error.max"},
		{"mapping's host port", `{"id":"/a","container":{"portMappings":[{"hostPort":-1}]}}`, "/container/portMappings(0)/hostPort", "error.min"},
		{"mapping's protocol", `{"id":"/a","container":{"portMappings":[{"protocol":"sctp"}]}}`, "/container/portMappings(0)/protocol", "error.unknown.enum.literal"},
		{"mapping's name", `{"id":"/a","container":{"portMappings":[{"name":"Web"}]}}`, "/container/portMappings(0)/name", "error.pattern"},
		{"volume without path", `{"id":"/a","container":{"volumes":[{"hostPath":"/x"}]}}`, "/container/volumes(0)/containerPath", "error.path.missing"},
		{"volume mode", `{"id":"/a","container":{"volumes":[{"containerPath":"x","mode":"rw"}]}}`, "/container/volumes(0)/mode", "error.unknown.enum.literal"},
		{"persistent volume without size", `{"id":"/a","container":{"volumes":[{"containerPath":"x","persistent":{}}]}}`, "/container/volumes(0)/persistent/size", "error.path.missing"},
		{"network mode", `{"id":"/a","networks":[{"mode":"bridge"}]}`, "/networks(0)/mode", "error.unknown.enum.literal"},
		{"port definition", `{"id":"/a","portDefinitions":[{"port":65536}]}`, "/portDefinitions(0)/port", "error.max"},
		{"port definition's protocol", `{"id":"/a","portDefinitions":[{"protocol":"x"}]}`, "/portDefinitions(0)/protocol", "error.unknown.enum.literal"},
		{"fetch without uri", `{"id":"/a","fetch":[{"cache":true}]}`, "/fetch(0)/uri", "error.path.missing"},
		{"empty fetch uri", `{"id":"/a","fetch":[{"uri":""}]}`, "/fetch(0)/uri", "error.minLength"},
		{"long fetch uri", `{"id":"/a","fetch":[{"uri":"` + strings.Repeat("x", 1025) + `"}]}`, "/fetch(0)/uri", "error.maxLength"},
		{"health protocol", `{"id":"/a","healthChecks":[{"protocol":"UDP"}]}`, "/healthChecks(0)/protocol", "error.unknown.enum.literal"},
		{"health port index", `{"id":"/a","healthChecks":[{"portIndex":-1}]}`, "/healthChecks(0)/portIndex", "error.min"},
		{"health port", `{"id":"/a","healthChecks":[{"port":65536}]}`, "/healthChecks(0)/port", "error.max"},
		{"health ip protocol", `{"id":"/a","healthChecks":[{"ipProtocol":"ipv4"}]}`, "/healthChecks(0)/ipProtocol", "error.unknown.enum.literal"},
		{"health command", `{"id":"/a","healthChecks":[{"command":{}}]}`, "/healthChecks(0)/command/value", "error.path.missing"},
		{"exec check without command", `{"id":"/a","check":{"exec":{}}}`, "/check/exec/command", "error.path.missing"},
		{"readiness time-out", `{"id":"/a","readinessChecks":[{"timeoutSeconds":0}]}`, "/readinessChecks(0)/timeoutSeconds", "error.min"},
		{"readiness protocol", `{"id":"/a","readinessChecks":[{"protocol":"TCP"}]}`, "/readinessChecks(0)/protocol", "error.unknown.enum.literal"},
		{"backoff", `{"id":"/a","backoffSeconds":-1}`, "/backoffSeconds", "error.min"},
		{"backoff factor", `{"id":"/a","backoffFactor":0.5}`, "/backoffFactor", "error.min"},
		{"launch delay", `{"id":"/a","maxLaunchDelaySeconds":-1}`, "/maxLaunchDelaySeconds", "error.min"},
		{"kill grace period", `{"id":"/a","taskKillGracePeriodSeconds":-1}`, "/taskKillGracePeriodSeconds", "error.min"},
		{"unreachable strategy's word", `{"id":"/a","unreachableStrategy":"off"}`, "/unreachableStrategy", "error.unknown.enum.literal"},
		{"unreachable strategy's seconds", `{"id":"/a","unreachableStrategy":{"expungeAfterSeconds":-1}}`, "/unreachableStrategy/expungeAfterSeconds", "error.min"},
		{"kill selection", `{"id":"/a","killSelection":"RANDOM"}`, "/killSelection", "error.unknown.enum.literal"},
		{"resource limit", `{"id":"/a","resourceLimits":{"cpus":"none"}}`, "/resourceLimits/cpus", "error.unknown.enum.literal"},
		{"secret without source", `{"id":"/a","secrets":{"s":{}}}`, "/secrets/s/source", "error.path.missing"},
		{"version", `{"id":"/a","version":"yesterday"}`, "/version", "error.expected.date.isoformat"},
		{"version is quoted", `{"id":"/a","version":"yesterday"}`, "/version", `"yesterday"`},
		{"residency", `{"id":"/a","residency":{"taskLostBehavior":"PANIC"}}`, "/residency/taskLostBehavior", "error.unknown.enum.literal"},
		{"old ports", `{"id":"/a","ports":[70000]}`, "/ports(0)", "error.max"},
		{"old docker network", `{"id":"/a","container":{"docker":{"image":"i","network":"OVERLAY"}}}`, "/container/docker/network", "error.unknown.enum.literal"},
		{"old discovery port", `{"id":"/a","ipAddress":{"discovery":{"ports":[{"name":"x"}]}}}`, "/ipAddress/discovery/ports(0)/number", "error.path.missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseApp([]byte(tt.body))
			checkRefused(t, err, MessageJSON, tt.path, tt.code)
		})
	}
}

func TestAllTypeErrorsAreListed(t *testing.T) {
	_, err := ParseApp([]byte(`{"cpus":"one","healthChecks":[{"protocol":"X","port":-1}]}`))
	want := "Invalid JSON; /cpus: error.expected.jsnumber; /healthChecks(0)/port: error.min; " +
		"/healthChecks(0)/protocol: error.unknown.enum.literal; /id: error.path.missing"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNotJSON(t *testing.T) {
	tests := []struct{ name, body, text string }{
		{"empty", ``, "unexpected end of input at line 1, column 1"},
		{"open object", `{`, "at line 1, column 2"},
		{"bad word", "{\n  \"id\": yes}", "at line 2, column 9"},
		{"two values", `{"id":"/a"} {}`, "unexpected text after the value at line 1, column 13"},
		{"not text", "\x00\x01", "at line 1, column 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseApp([]byte(tt.body))
			invalid, ok := errors.AsType[*Invalid](err)
			if !ok || invalid.Message != MessageJSON || invalid.Details != nil || !strings.Contains(invalid.Syntax, tt.text) {
				t.Errorf("got %v, want a syntax error with %q", err, tt.text)
			}
		})
	}
}

func TestLenientInput(t *testing.T) {
	tests := []struct{ name, body string }{
		{"unknown fields at every level", `{"id":"/a","cmd":"x","new":1,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0,"x":[]},"networks":[{"mode":"host","y":{}}]}`},
		{"null everywhere", `{"id":"/a","cmd":"x","ports":null,"container":null,"healthChecks":null,"upgradeStrategy":null,"env":{"X":null},"labels":null,"versionInfo":null}`},
		{"whole number with a fraction", `{"id":"/a","cmd":"x","instances":2.0,"gpus":0.0}`},
		{"whole number with an exponent", `{"id":"/a","cmd":"x","instances":2e0}`},
		{"repeated field", `{"id":"/a","cmd":1,"cmd":"x"}`},
		{"one letter command", `{"id":"/a","cmd":"x"}`},
		{"no cpus at all", `{"id":"/a","cmd":"x","cpus":0}`},
		{"empty cmd beside args", `{"id":"/a","cmd":"","args":["x"]}`},
		{"empty args beside cmd", `{"id":"/a","cmd":"x","args":[]}`},
		{"fields are not found by another case", `{"id":"/a","cmd":"x","CPUS":"many"}`},
		{"version of the output", `{"id":"/a","cmd":"x","version":"2024-05-04T10:11:12.345Z"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := create(tt.body, DefaultSettings()); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestParseUpdates(t *testing.T) {
	drafts, err := ParseUpdates([]byte(`[{"id":"/a","instances":2},{"id":"b"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := drafts[1].ID(Root); len(drafts) != 2 || id != "/b" || err != nil {
		t.Errorf("got %d drafts, second %v, %v", len(drafts), id, err)
	}
	_, err = ParseUpdates([]byte(`[{"id":"/a"},{"cpus":"x"}]`))
	checkRefused(t, err, MessageJSON, "(1)/id", "error.path.missing")
	checkRefused(t, err, MessageJSON, "(1)/cpus", "error.expected.jsnumber")
}

func TestRollback(t *testing.T) {
	tests := []struct {
		name, body string
		ask, fail  bool
	}{
		{"version alone", `{"version":"2024-05-04T10:11:12.345Z"}`, true, false},
		{"version with id", `{"id":"/a","version":"2024-05-04T12:11:12.345+02:00"}`, true, false},
		{"version with more", `{"version":"2024-05-04T10:11:12.345Z","instances":2}`, false, true},
		{"no version", `{"instances":2}`, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseUpdate([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			version, ask, err := d.Rollback()
			if ask != tt.ask || (err != nil) != tt.fail {
				t.Fatalf("got %v, %v", ask, err)
			}
			if ask && version.String() != "2024-05-04T10:11:12.345Z" {
				t.Errorf("got version %s", version)
			}
			if tt.fail {
				checkRefused(t, err, MessageObject, "/", "The 'version' field may only be combined with the 'id' field.")
			}
		})
	}
}
