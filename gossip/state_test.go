package gossip

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPeersAreWrittenOnlyWhenTheyTellSomethingNew(t *testing.T) {
	s, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, peersFile)
	seen := epoch
	at := func(addr string) []remembered {
		return []remembered{{Name: "a", Addr: "10.0.0.9:1", Seen: epoch}, {Name: "b", Addr: addr, Seen: seen}}
	}
	for _, step := range []struct {
		what    string
		peers   []remembered
		later   time.Duration // than the step before
		written bool
	}{
		{"the first list", at("10.0.0.1:1"), 0, true},
		{"the same a little later", at("10.0.0.1:1"), 30 * time.Second, false},
		{"the same again", at("10.0.0.1:1"), 9 * time.Minute, false},
		{"the same much later", at("10.0.0.1:1"), 30 * time.Second, true},
		{"another address", at("10.0.0.2:1"), time.Second, true},
		{"one peer less", at("10.0.0.2:1")[:1], time.Second, true},
		{"nobody", []remembered{}, time.Second, true},
		{"still nobody", []remembered{}, time.Second, false},
	} {
		seen = seen.Add(step.later)
		for i := range step.peers {
			if step.peers[i].Name == "b" {
				step.peers[i].Seen = seen
			}
		}
		if err := s.savePeers(step.peers); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		_, err := os.Stat(path)
		if written := err == nil; written != step.written {
			t.Errorf("%s: written: %v, want %v", step.what, written, step.written)
		}
		if err == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}
