package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestValidateNamesEveryFault(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Log = "n", slog.New(slog.DiscardHandler)
	if err := cfg.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	bad := Config{
		NodeID: "a/b", Cluster: strings.Repeat("c", 200), BindAddr: "host", BindPort: -1, AdvertiseAddr: "0.0.0.0", AdvertisePort: 70000,
		Join: []string{"ok", "a:b:c", "host:0", ""}, Profile: "moon", Key: Secret("short"), GossipRate: 1,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("everything is wrong and nobody noticed")
	}
	for _, want := range []string{"NodeID", "Cluster", "BindAddr", "BindPort", "AdvertiseAddr", "AdvertisePort", `"a:b:c"`, `"host:0"`, `""`, "Profile", "Key", "ReapAfter", "GossipRate", "RepairRate", "Log"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %s in:\n%v", want, err)
		}
	}
	if _, err := New(bad); err == nil {
		t.Error("New took a bad configuration")
	}
}

func TestSplitSeed(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1 7946", "10.0.0.1:1": "10.0.0.1 1", "fd00::1": "fd00::1 7946", "[fd00::1]:5": "fd00::1 5",
		"seed.example": "seed.example 7946", "seed:80": "seed 80",
		"": "", ":7946": "", "host:x": "", "host:65536": "", "a b": "", "n/10.0.0.1": "",
	} {
		host, port, err := splitSeed(in)
		got := fmt.Sprint(host, " ", port)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%q is %q (%v), want %q", in, got, err, want)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	var b bytes.Buffer
	cfg := DefaultConfig()
	cfg.Key = Secret("canary-canary-canary")
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "key", cfg.Key)
	fmt.Fprintf(&b, "%v %s %v", cfg.Key, cfg.Key, cfg)
	if strings.Contains(b.String(), "canary") {
		t.Errorf("printed: %s", b.String())
	}
}

func TestGenerationsGrowAndNeverMeet(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for i := range 5 {
		s, err := openState(dir)
		if err != nil {
			t.Fatal(err)
		}
		g, err := s.nextGeneration(0)
		if err != nil || g <= last {
			t.Fatalf("start %d: generation %d after %d (%v)", i, g, last, err)
		}
		last = g
	}
	s, err := openState(t.TempDir()) // a wiped disk
	if err != nil {
		t.Fatal(err)
	}
	if g, err := s.nextGeneration(last); err != nil || g <= last {
		t.Errorf("generation %d (%v), want more than %d", g, err, last)
	}
	if g, err := s.nextGeneration(1<<63 - 1); err != nil || g > maxGeneration {
		t.Errorf("generation %d (%v): a forged one was followed to the end of all numbers", g, err)
	}
	for _, content := range []string{"", "{", "[]", "\x00\x00", strings.Repeat(" ", maxStateFile+1), `{"version":1,"generation":18446744073709551615}`} {
		if err := os.WriteFile(filepath.Join(dir, generationFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := openState(dir); err != nil {
			t.Errorf("with the file %.10q: %v, want a fresh start", content, err)
		} else if g, err := s.nextGeneration(0); err != nil || g == 0 || g > maxGeneration {
			t.Errorf("with the file %.10q: generation %d, %v", content, g, err)
		}
	}
}

func TestPeersAreRemembered(t *testing.T) {
	s, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := newPeerBook("self", []remembered{{Name: "bad", Addr: "nonsense"}, {Name: "self", Addr: "10.0.0.9:1"}, {Name: "old", Addr: "10.0.0.8:1"}})
	for i := range 3 {
		b.joined(memberlist.Node{Name: fmt.Sprint("n", i), Addr: []byte{10, 0, 0, byte(i)}, Port: 7946}, epoch)
	}
	b.left("n1", epoch)
	if err := s.savePeers(b.remember()); err != nil {
		t.Fatal(err)
	}
	got, err := s.loadPeers()
	if err != nil || len(got) != 4 || got[2].Name != "n1" || got[2].Addr != "10.0.0.1:7946" || got[3].Name != "old" {
		t.Errorf("remembered %+v (%v), want n0, n2, n1, old", got, err)
	}
	if b.countAlive() != 2 || len(b.random(9, "n0")) != 1 || !b.aliveAt("10.0.0.2:7946") || b.aliveAt("10.0.0.1:7946") {
		t.Errorf("alive: %v", b.random(9, ""))
	}
}

func TestDeadPeersAreTriedEverMoreRarely(t *testing.T) {
	b := newPeerBook("self", nil)
	b.joined(memberlist.Node{Name: "n", Addr: []byte{10, 0, 0, 1}, Port: 7946}, epoch)
	b.left("n", epoch)
	tries, last := 0, time.Duration(0)
	for d := time.Duration(0); d < 24*time.Hour; d += time.Second {
		if len(b.due(epoch.Add(d), 3, false)) > 0 {
			tries++
			last = d
		}
	}
	if tries < 100 || tries > 250 || 24*time.Hour-last > 13*time.Minute {
		t.Errorf("%d tries in a day, the last after %v; want about one in ten minutes, for ever", tries, last)
	}
}

func TestPeersThatLeftAreTriedOnlyByWhoIsAlone(t *testing.T) {
	b := newPeerBook("self", nil)
	for i := range 10 {
		n := memberlist.Node{Name: fmt.Sprint("n", i), Addr: []byte{10, 0, 0, byte(i)}, Port: 7946}
		b.joined(n, epoch)
		b.left(n.Name, epoch)
		if i != 7 {
			b.rest(n.Name)
		}
	}
	now := epoch.Add(time.Minute)
	if got := b.due(now, 3, false); len(got) != 1 || got[0].Name != "n7" {
		t.Errorf("due: %v, want n7 alone: the others said goodbye", got)
	}
	if got := b.due(now, 20, true); len(got) != 9 {
		t.Errorf("%d due for who is alone, want the other nine", len(got))
	}
	b.joined(memberlist.Node{Name: "n1", Addr: []byte{10, 0, 0, 1}, Port: 7946}, now)
	b.left("n1", now)
	if got := b.due(now.Add(time.Minute), 3, false); !slices.ContainsFunc(got, func(n memberlist.Node) bool { return n.Name == "n1" }) {
		t.Errorf("due: %v, want n1 among them: it came back and died", got)
	}
}

func TestTheNewlyLostDoNotWaitBehindTheOldDead(t *testing.T) {
	b := newPeerBook("self", nil)
	for i := range 500 {
		n := memberlist.Node{Name: fmt.Sprint("old", i), Addr: []byte{10, 1, byte(i >> 8), byte(i)}, Port: 7946}
		b.joined(n, epoch)
		b.left(n.Name, epoch)
	}
	tried := map[string]int{}
	step := func(now time.Time) {
		for _, n := range b.due(now, 4, false) {
			tried[n.Name]++
		}
	}
	now := epoch
	for ; now.Before(epoch.Add(2 * time.Hour)); now = now.Add(5 * time.Second) {
		step(now)
	}
	if len(tried) != 500 {
		t.Errorf("%d of 500 dead peers were tried in two hours, want all", len(tried))
	}
	b.joined(memberlist.Node{Name: "new", Addr: []byte{10, 0, 0, 1}, Port: 7946}, now)
	b.left("new", now)
	for lost := now; now.Before(lost.Add(20 * time.Second)); now = now.Add(5 * time.Second) {
		step(now)
	}
	if tried["new"] == 0 {
		t.Error("the peer that was lost last was not tried within 20 s")
	}
}
