package gossip

import (
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"starling/gossip/record"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenMessages holds one message of each kind.
func goldenMessages() map[string]*message {
	var s record.Summary
	for i := range s {
		s[i] = uint64(i) << 32
	}
	return map[string]*message{
		"hot":     {kind: kindHot, deltas: [][]byte{[]byte("delta"), []byte("another")}},
		"repair":  {kind: kindRepair, deltas: [][]byte{[]byte("delta")}},
		"summary": {kind: kindSummary, node: "n1", flags: overStream, summary: s, addr: "10.0.0.1:7946"},
		"digests": {kind: kindDigests, node: "n1", flags: wantReply, mask: 1<<63 | 5, digests: []record.Digest{{Node: "n2", Generation: 1, Version: 300, Floor: 7}}},
		"bye":     {kind: kindBye, node: "n1", number: 77},
		"claim":   {kind: kindClaim, node: "n1", number: 1 << 60, uptime: 90 * time.Second, addr: "10.0.0.1:7946"},
		"keys":    {kind: kindKeys, node: "n1", number: 300, secrets: []Secret{Secret("0123456789abcdef"), Secret("fedcba9876543210")}},
		"ask":     {kind: kindAsk, node: "n1", number: 1 << 63, addr: "10.0.0.1:7946", to: "n2"},
		"answer":  {kind: kindAnswer, node: "n2", number: 1 << 63},
		"held":    {kind: kindHeld, node: "n1", number: 5, uptime: time.Hour, addr: "[fd00::1]:7946"},
	}
}

func TestGoldenMessages(t *testing.T) {
	kinds := map[kind]bool{}
	for name, msg := range goldenMessages() {
		wire := msg.append(nil)
		file := filepath.Join("testdata", "v1-"+name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.Dump(wire)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), hex.Dump(wire)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		got, err := parseMessage(wire)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(msg, got, cmp.AllowUnexported(message{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if again := got.append(nil); string(again) != string(wire) {
			t.Errorf("%s was written again as %x, want %x", name, again, wire)
		}
		kinds[msg.kind] = true
	}
	for k := range 256 {
		if _, err := parseMessage([]byte{messageVersion, byte(k)}); !kinds[kind(k)] && (err == nil || !strings.Contains(err.Error(), "is not known")) {
			t.Errorf("there is no golden file of kind %d", k)
		}
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	for name, msg := range goldenMessages() {
		wire := msg.append(nil)
		for i := range wire {
			if name == "hot" && (i == 2 || i == 8) || name == "repair" && i == 2 || name == "keys" && (i == 7 || i == 24) {
				continue // cut between deltas or secrets: fewer of them
			}
			if _, err := parseMessage(wire[:i]); !errors.Is(err, errMessage) {
				t.Errorf("%s cut to %d bytes: %v, want it refused", name, i, err)
			}
		}
		if name != "hot" && name != "repair" {
			if _, err := parseMessage(append(wire, 0)); !errors.Is(err, errMessage) {
				t.Errorf("%s with a byte too many: %v, want it refused", name, err)
			}
		}
	}
	for _, b := range [][]byte{{2, 1}, {1, 0}, {1, 99, 1, 2}, {1, byte(kindBye), 0, 1}, make([]byte, maxMessage+1)} {
		if _, err := parseMessage(b); !errors.Is(err, errMessage) {
			t.Errorf("%.10x: %v, want it refused", b, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, msg := range goldenMessages() {
		f.Add(msg.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := parseMessage(msg.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(msg, again, cmp.AllowUnexported(message{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
