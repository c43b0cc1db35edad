package catalog

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
)

// FuzzValues decodes anything as the value of each key: what decodes is written again, unknown fields included, and means the same.
func FuzzValues(f *testing.F) {
	kinds := messages()
	names := make([]string, 0, len(kinds))
	for name, m := range kinds {
		names = append(names, name)
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
		f.Add(append(wire, 0xfa, 0x07, 3, 'n', 'e', 'w'))
	}
	slices.Sort(names)
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, name := range names {
			m := kinds[name].ProtoReflect().New().Interface()
			if proto.Unmarshal(wire, m) != nil {
				continue
			}
			once, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			again := m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(once, again); err != nil {
				t.Fatalf("%s written again as %x: %v", name, once, err)
			}
			if !proto.Equal(m, again) {
				t.Fatalf("%s written again as %x is %v, want %v", name, once, again, m)
			}
			if twice, err := (proto.MarshalOptions{Deterministic: true}).Marshal(again); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%s written as %x and then as %x (%v)", name, once, twice, err)
			}
		}
	})
}

// FuzzTaskKey takes apart any key: what is the key of a task is made of its two ids again.
func FuzzTaskKey(f *testing.F) {
	for _, key := range []string{"", "node", "task/", "task/f", "task/f/t", "task/f/a/b", "task//"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		framework, task, ok := ParseTaskKey(key)
		if ok && TaskKey(framework, task) != key {
			t.Fatalf("%q is %q and %q, which is %q", key, framework, task, TaskKey(framework, task))
		}
	})
}
