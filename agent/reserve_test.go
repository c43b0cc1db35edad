package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
)

// What no longer fits is kept, data and all, and told; with the old configuration it is back.
func TestReservationsThatNoLongerFit(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.apply(reserveOp(reserved(t, "cpus:3;disk:100")...), createOp(volume(t, "v1", 100)))
	all := w.total().String()
	if err := os.WriteFile(filepath.Join(m.volumeDir("v1"), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.end()
	less := func(c *Config) { c.Resources = testResources(t, "cpus:2;mem:4096;disk:99") }
	w = m.start(w.leaderSide, less)
	w.wantFree("cpus:2; disk:99; mem:4096")
	problems := strings.Join(w.problems(), "\n")
	for _, want := range []string{"cpus(reservations: [(DYNAMIC,web)]):3 was made of", "[v1:data]:100 was made of"} {
		if !strings.Contains(problems, want) {
			t.Errorf("want %q in %q", want, problems)
		}
	}
	// Neither its name nor its place can be taken meanwhile.
	w.apply(reserveOp(reserved(t, "disk:10")...))
	if got := w.refused(mesos.OperationState_OPERATION_ERROR, createOp(volume(t, "v1", 10))); !strings.Contains(got, "not unique") {
		t.Errorf("got %q", got)
	}
	w.apply(unreserveOp(reserved(t, "disk:10")...))
	w.end()
	w = m.start(w.leaderSide)
	defer w.end()
	if got := w.total().String(); got != all || len(w.problems()) > 0 {
		t.Errorf("with the old configuration: got %s, problems %q, want %s", got, w.problems(), all)
	}
	if _, err := os.Stat(filepath.Join(m.volumeDir("v1"), "file")); err != nil {
		t.Errorf("what was in the volume: %v", err)
	}
}

func TestDamagedReservations(t *testing.T) {
	damage := map[string]func([]byte) []byte{
		"torn":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"flipped": func(b []byte) []byte { b[len(b)-len(b)/3] ^= 0x10; return b },
	}
	for how, spoil := range damage {
		for _, files := range [][]string{{"resources"}, {"resources.copy"}, {"resources", "resources.copy"}} {
			t.Run(how+" "+strings.Join(files, " and "), func(t *testing.T) {
				m := newMachine(t)
				w := m.start(nil)
				w.apply(named("op1", reserveOp(reserved(t, "cpus:3;disk:100")...)), createOp(volume(t, "v1", 100)))
				all := w.total().String()
				inside := filepath.Join(m.volumeDir("v1"), "file")
				if err := os.WriteFile(inside, []byte("data"), 0o600); err != nil {
					t.Fatal(err)
				}
				w.end()
				for _, name := range files {
					path := filepath.Join(m.dir, "meta", name)
					data, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, spoil(data), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				w = m.start(w.leaderSide)
				defer w.end()
				if len(w.problems()) == 0 {
					t.Error("nothing is said of it")
				}
				if len(files) == 1 {
					if got := w.total().String(); got != all || len(w.state().Operations) != 1 {
						t.Errorf("got %s and %d operations, want %s and one", got, len(w.state().Operations), all)
					}
					return
				}
				w.wantFree(testResources(t, nodeResources).String())
				// The data is still there, also when a new volume takes the place.
				w.apply(reserveOp(reserved(t, "disk:10")...), createOp(volume(t, "v1", 10)))
				kept, err := filepath.Glob(filepath.Join(m.dir, "volumes", "kept", "web", "v1.*", "file"))
				if err != nil || len(kept) != 1 {
					t.Fatalf("kept: %v, %v", kept, err)
				}
				if data, err := os.ReadFile(kept[0]); string(data) != "data" {
					t.Errorf("kept: %q, %v", data, err)
				}
				if _, err := os.Stat(inside); !os.IsNotExist(err) {
					t.Errorf("a new volume is not empty: %v", err)
				}
			})
		}
	}
}

// More reservations than the mesh would carry are refused, and what the record says stays small enough.
func TestReservationsAreBounded(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	for i := 0; ; i++ {
		r := reserved(t, "cpus:0.001")[0]
		r.Reservations[0].Labels = &mesos.Labels{Labels: []*mesos.Label{{
			Key: proto.String(fmt.Sprint(i)), Value: proto.String(strings.Repeat("x", 2000)),
		}}}
		st := w.mustCall(applyCall(reserveOp(r))).GetOperations()[0]
		value, _ := w.mesh.Snapshot(testAgent).Get(catalog.KeyResources)
		if limit := record.DefaultLimits().ValueSize; len(value) > limit {
			t.Fatalf("after %d reservations the record holds a value of %d bytes, %d are allowed", i+1, len(value), limit)
		}
		if st.GetState() == mesos.OperationState_OPERATION_DROPPED {
			if i < 10 || !strings.Contains(st.GetMessage(), "would be larger than") {
				t.Errorf("reservation %d: got %v", i, st)
			}
			return
		}
		if i > 100 {
			t.Fatal("more than 100 reservations of 2000 bytes were taken")
		}
	}
}
