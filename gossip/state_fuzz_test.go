package gossip

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// FuzzStateFiles begins with anything on disk: no content keeps a node from starting, generations still grow, and what was
// read can be written and read again.
func FuzzStateFiles(f *testing.F) {
	for _, s := range []string{
		"", "{", "[]", "null", `{"version":1,"generation":7340033}`, `{"version":2,"generation":1,"later":{}}`,
		`{"version":1,"generation":18446744073709551615}`, `{"version":1,"generation":-1}`,
		`{"version":1,"peers":[{"name":"a","addr":"10.0.0.1:7946","seen":"2026-11-01T12:00:00Z"},{"name":"b","addr":"nonsense"}]}`,
		`{"peers":[{"name":"a","addr":"[fd00::1%eth0]:1","seen":"9999-12-31T23:59:59+23:59"}]}`,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir() // files are replaced whole
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, name := range []string{generationFile, peersFile} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := openState(dir)
		if err != nil {
			t.Fatal(err)
		}
		before := s.last
		if g, err := s.nextGeneration(0); err != nil || g <= before && before < maxGeneration || g == 0 {
			t.Fatalf("generation %d after %d (%v)", g, before, err)
		}
		peers, err := s.loadPeers()
		if err != nil && peers != nil {
			t.Fatalf("%d peers in spite of %v", len(peers), err)
		}
		book := newPeerBook("self", peers)
		kept := book.remember()
		if len(kept) > len(peers) {
			t.Fatalf("%d peers out of %d", len(kept), len(peers))
		}
		if err := s.savePeers(kept); err != nil {
			t.Fatal(err)
		}
		again, err := s.loadPeers()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(kept, newPeerBook("self", again).remember(), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); diff != "" {
			t.Fatalf("peers (-kept +read):\n%s", diff)
		}
	})
}
