package app

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestSchemasSayEverythingOfAShape walks through the schemas: each part says what fits, and each reference leads somewhere.
func TestSchemasSayEverythingOfAShape(t *testing.T) {
	if _, ok := Schema("task"); ok {
		t.Error("there is a schema of a task")
	}
	for _, name := range []string{"app", "pod", "group"} {
		schema, ok := Schema(name)
		encoded, err := json.Marshal(schema)
		if !ok || err != nil {
			t.Fatalf("%s: %t, %v", name, ok, err)
		}
		var root map[string]any
		if err := json.Unmarshal(encoded, &root); err != nil {
			t.Fatal(err)
		}
		parts := 0
		var walk func(at string, part map[string]any)
		walk = func(at string, part map[string]any) {
			parts++
			if ref, ok := part["$ref"].(string); ok {
				if found := follow(root, ref); found["type"] == nil {
					t.Errorf("%s: %s refers to %s, which is not there", name, at, ref)
				}
				return
			}
			if part["type"] == nil && part["anyOf"] == nil {
				t.Errorf("%s: %s says nothing of its type", name, at)
			}
			properties, _ := part["properties"].(map[string]any)
			for field, sub := range properties {
				walk(at+"/"+field, sub.(map[string]any))
			}
			for _, key := range []string{"items", "additionalProperties"} {
				if sub, ok := part[key].(map[string]any); ok {
					walk(at+"/"+key, sub)
				}
			}
			either, _ := part["anyOf"].([]any)
			for i, sub := range either {
				walk(fmt.Sprintf("%s/%d", at, i), sub.(map[string]any))
			}
		}
		walk("", root)
		if parts < 80 {
			t.Errorf("%s has %d parts only", name, parts)
		}
		if name == "group" && !strings.Contains(string(encoded), `"groups":{"$ref":"#/properties/groups"}`) {
			t.Error("a group in a group is not described by reference")
		}
	}
}

// follow finds what a reference names.
func follow(root map[string]any, ref string) map[string]any {
	at := root
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#"), "/") {
		if part != "" {
			at, _ = at[part].(map[string]any)
		}
	}
	return at
}

func TestSchemaHasLimitsAndDefaults(t *testing.T) {
	schema, _ := Schema("app")
	encoded, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"backoffFactor":{"minimum":1,"type":"number"}`,
		`"instances":{"maximum":2147483647,"minimum":0,"type":"integer"}`,
		`"killSelection":{"enum":["YOUNGEST_FIRST","OLDEST_FIRST"],"type":"string"}`,
		`"port":{"default":0,"maximum":65535,"minimum":0,"type":"integer"}`,
		`"version":{"format":"date-time","type":"string"}`,
		`"unreachableStrategy":{"anyOf":[{"enum":["disabled"],"type":"string"},{"properties":{"expungeAfterSeconds":`,
		`"labels":{"additionalProperties":{"type":"string"},"type":"object"}`,
		`"uris":{"items":{"maxLength":1024,"minLength":1,"type":"string"},"type":"array"}`,
		`"required":["id"]`,
	} {
		if !strings.Contains(string(encoded), want) {
			t.Errorf("the schema lacks %s", want)
		}
	}
}
