package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/gossip/keyring"
)

func TestWhichKeyringANodeBeginsWith(t *testing.T) {
	ring := func(serial uint64, letters ...string) keyring.Ring {
		r := keyring.Ring{Serial: serial}
		for _, l := range letters {
			r.Secrets = append(r.Secrets, secret(l))
		}
		return r
	}
	kept := func(r keyring.Ring, ancestors ...string) func(*testing.T, *stateDir) {
		return func(t *testing.T, s *stateDir) {
			t.Helper()
			var names []string
			for _, l := range ancestors {
				names = append(names, secret(l).Fingerprint())
			}
			if err := s.saveKeyring(r, names); err != nil {
				t.Fatal(err)
			}
		}
	}
	written := func(content string) func(*testing.T, *stateDir) {
		return func(t *testing.T, s *stateDir) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(s.dir, keyringFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	loose := func(t *testing.T, s *stateDir) {
		kept(ring(2, "b", "a"))(t, s)
		if err := os.Chmod(filepath.Join(s.dir, keyringFile), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const damaged = "kept keyring not readable"
	for _, tt := range []struct {
		name string
		disk func(*testing.T, *stateDir)
		want keyring.Ring
		line string // that is logged
	}{
		{"an empty disk: the file's", nil, ring(0, "a"), ""},
		{"a keyring that holds the file's key", kept(ring(1, "a", "b")), ring(1, "a", "b"), ""},
		{"one that uses the next already", kept(ring(2, "b", "a")), ring(2, "b", "a"), "was rotated since"},
		{"one that descends from the file's key", kept(ring(6, "c"), "a", "b"), ring(6, "c"), "was rotated since"},
		{"one that has nothing to do with it", kept(ring(6, "c"), "b"), ring(0, "a"), "the file is followed, the keyring dropped"},
		{"one that others could read", loose, ring(2, "b", "a"), "mode is mended"},
		{"an empty one", written(""), ring(0, "a"), damaged},
		{"a torn one", written(`{"version":1,"serial":3,"secr`), ring(0, "a"), damaged},
		{"one of zeros", written("\x00\x00\x00"), ring(0, "a"), damaged},
		{"one without secrets", written(`{"version":1,"serial":3,"secrets":[]}`), ring(0, "a"), damaged},
		{"one of a later release", written(`{"version":2,"serial":3,"secrets":[]}`), ring(0, "a"), damaged},
		{"a huge one", written(strings.Repeat(" ", maxStateFile+1)), ring(0, "a"), damaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := openState(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if tt.disk != nil {
				tt.disk(t, s)
			}
			var log bytes.Buffer
			cfg := Config{Key: secret("a"), Cluster: "c"}
			k, err := newKeys(s, &cfg, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if got := newAck(k.current()); !got.same(newAck(tt.want)) {
				t.Errorf("ring %v, want %v", got, newAck(tt.want))
			}
			if got := log.String(); tt.line == "" && got != "" || !strings.Contains(got, tt.line) {
				t.Errorf("logged %q, want %q", got, tt.line)
			}
			var derived [][]byte
			for _, s := range tt.want.Secrets {
				derived = append(derived, s.MeshKey("c"))
			}
			if got := k.memberlist.GetKeys(); !slices.EqualFunc(got, derived, bytes.Equal) {
				t.Errorf("memberlist has %d keys, or not these in this order", len(got))
			}
			if info, err := os.Stat(filepath.Join(s.dir, keyringFile)); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("the file has mode %v", info.Mode())
			}
			if _, err := os.Stat(filepath.Join(s.dir, keyringFile+".damaged")); (err == nil) != (tt.line == damaged) {
				t.Errorf("kept aside: %v", err)
			}
			// The same is found again at the next start.
			again, err := newKeys(s, &cfg, slog.New(slog.DiscardHandler))
			if err != nil || !newAck(again.current()).same(newAck(tt.want)) {
				t.Errorf("at the next start: %v, %v", newAck(again.current()), err)
			}
		})
	}
}

// However often the key was rotated, a node whose operator has not replaced the key file since finds its keyring again.
func TestTheFileIsAlwaysAnAncestor(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.start(0, withKey("a"))
		n := f.nodes[0]
		f.within(time.Second, "started", func() bool { return n.ml.Load() != nil })
		var last Secret
		for i := range maxAncestors + 10 {
			last = Secret(fmt.Sprintf("a secret of number %16d", i))
			if err := n.RotateKey(t.Context(), last, RotateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		n.stop()
		<-n.result
		n.result <- nil
		_, ancestors, err := n.state.loadKeyring(slog.New(slog.DiscardHandler))
		if err != nil || len(ancestors) != maxAncestors {
			t.Errorf("%d ancestors (%v), want %d", len(ancestors), err, maxAncestors)
		}
		again := f.start(0, withKey("a"))
		if got := again.keys.current(); !bytes.Equal(got.Primary(), last) {
			t.Errorf("began with %v", got.Fingerprints())
		}
	})
}

// breakDisk lets a node keep nothing any more.
func breakDisk(n *node) (mend func()) {
	set := func(dir string) {
		n.state.mu.Lock()
		defer n.state.mu.Unlock()
		n.state.dir = dir
	}
	dir := n.state.dir
	set(filepath.Join(dir, "not", "there"))
	return func() { set(dir) }
}

// What cannot be kept is not acknowledged: others would take the next step, and this node find itself behind at its next start.
func TestARotationWaitsForAFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4, withKey("a"))
		mend := breakDisk(f.nodes[2])
		err := f.nodes[0].RotateKey(t.Context(), secret("b"), RotateOptions{Patience: 20 * time.Second})
		held, _ := errors.AsType[*HeldUpError](err)
		if held == nil || !held.Silent || !slices.Equal(held.Nodes, []string{"node-002"}) || held.Phase != keyring.Install {
			t.Errorf("%v, want it held up by the silence of node-002", err)
		}
		mend()
		if err := f.ends(f.rotate(f.nodes[1], "b", RotateOptions{}), 2*time.Minute); err != nil {
			t.Error(err)
		}
		f.within(10*time.Second, "all have the new key", f.allHold("b"))
	})
}

// Rings that no honest node sends change nothing, are counted, and are not written to disk; nor are old ones that are sent again.
func TestForgedAndReplayedKeyrings(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4, withKey("a"))
		victim := f.nodes[1]
		f.rotateUntil(f.nodes[0], "b", keyring.Use)
		install := keyring.Ring{Serial: 1, Secrets: []Secret{secret("a"), secret("b")}}
		if err := f.ends(f.rotate(f.nodes[0], "b", RotateOptions{}), time.Minute); err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]keyring.Ring{
			"replayed":           install,
			"of the same serial": {Serial: 3, Secrets: []Secret{secret("b")}},
			"without a secret":   {Serial: 9},
			"of strangers":       {Serial: 9, Secrets: []Secret{secret("x")}},
			"with one twice":     {Serial: 9, Secrets: []Secret{secret("b"), secret("b")}},
			"with a short one":   {Serial: 9, Secrets: []Secret{secret("b"), Secret("x")}},
			"out of reach":       {Serial: 1 << 39, Secrets: []Secret{secret("b")}},
		} {
			peer, _ := f.nodes[0].peerOf(victim.Self())
			body := (&message{kind: kindKeys, node: "node-000", number: r.Serial, secrets: r.Secrets}).append(nil)
			if err := f.nodes[0].ml.Load().SendReliable(&peer, body); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if !victim.holds("b") || victim.keys.current().Serial != 3 {
				t.Errorf("%s: the node has %v", name, newAck(victim.keys.current()))
			}
		}
		counts := map[string]float64{}
		for _, family := range gather(t, victim.Mesh) {
			if family.GetName() == "starling_gossip_keyrings_total" {
				for _, m := range family.GetMetric() {
					counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		if counts[keyringRefused] != 5 || counts[keyringOld] < 2 || counts[keyringNotKept] != 0 {
			t.Errorf("counted %v, want five refused and two old ones", counts)
		}
		// A node without a key is told nothing, and takes nothing.
		open := f.start(9, func(c *Config) { c.Join = nil })
		f.within(time.Second, "started", func() bool { return open.ml.Load() != nil })
		open.handle((&message{kind: kindKeys, node: "x", number: 1, secrets: []Secret{secret("b")}}).append(nil))
		if err := open.RotateKey(t.Context(), secret("b"), RotateOptions{}); !errors.Is(err, ErrNoKey) {
			t.Errorf("without a key: %v, want %v", err, ErrNoKey)
		}
		if open.Secrets() != nil || open.Keys()[0].Primary != "" {
			t.Error("a node without a key has one")
		}
		for _, i := range []int{4, 5, 6, 7, 8} {
			f.nodes[i] = nil
		}
	})
}

// No secret is in a log, a record, a metric or an error: neither of the file nor of a rotation, nor what is derived from them.
func TestSecretsStayInside(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		// The bubble runs on one processor, but goroutines may be stopped anywhere, and nodes go on logging to the end.
		log := &lockedWriter{w: &bytes.Buffer{}}
		logged := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		key := func(letter string) func(*Config) {
			return func(c *Config) { c.Key, c.Log = secret(letter), logged }
		}
		f.form(4, key("q"))
		challenge := f.nodes[1].RotationChallenge()
		sealed := keyring.Seal(secret("q"), "starling", challenge, keyring.Request{Next: secret("w")})
		if err := f.nodes[1].StartRotation(sealed); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "rotated", func() bool { return !f.nodes[1].Rotation().Running && f.allHold("w")() })
		f.start(4, key("q")) // cannot join
		time.Sleep(time.Minute)
		err := f.nodes[0].RotateKey(t.Context(), Secret("wwwwww"), RotateOptions{})
		fmt.Fprintf(log, "%v %+v %+v\n", err, f.nodes[1].Rotation(), f.nodes[1].Keys())
		for s := range f.nodes[0].Snapshots() {
			for key, value := range s.All() {
				fmt.Fprintf(log, "%s %s %x\n", key, value, value)
			}
		}
		fmt.Fprint(log, gather(t, f.nodes[0].Mesh))
		all := log.text()
		if len(all) < 1000 {
			t.Fatal("hardly anything was logged")
		}
		for _, l := range []string{"q", "w"} {
			for _, s := range [][]byte{secret(l)[:6], secret(l).MeshKey("starling")} {
				for form, text := range map[string]string{"text": string(s), "hex": fmt.Sprintf("%x", s), "numbers": strings.Trim(fmt.Sprint(s), "[]")} {
					if strings.Contains(all, text) {
						t.Errorf("secret %s is there as %s", l, form)
					}
				}
			}
		}
	})
}

// lockedWriter lets several goroutines write.
type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

func (w *lockedWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.String()
}

func TestStartingARotationFromOutside(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4, withKey("a"))
		n := f.nodes[1]
		seal := func(with, cluster, next string, challenge []byte) []byte {
			return keyring.Seal(secret(with), cluster, challenge, keyring.Request{Next: secret(next)})
		}
		refused := func(name string, sealed []byte, want error) {
			t.Helper()
			if err := n.StartRotation(sealed); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
			if state := n.Rotation(); state.Running || !f.allHold("a")() {
				t.Errorf("%s: %+v", name, state)
			}
		}
		refused("nonsense", []byte("nonsense"), keyring.ErrRequest)
		refused("another key", seal("x", "starling", "b", n.RotationChallenge()), keyring.ErrRequest)
		refused("another cluster", seal("a", "other", "b", n.RotationChallenge()), keyring.ErrRequest)
		refused("a challenge of another node", seal("a", "starling", "b", f.nodes[2].RotationChallenge()), keyring.ErrRequest)
		refused("no challenge", seal("a", "starling", "b", nil), keyring.ErrRequest)
		late := n.RotationChallenge()
		time.Sleep(challengeLife + time.Second)
		refused("a challenge of long ago", seal("a", "starling", "b", late), keyring.ErrRequest)

		sealed := seal("a", "starling", "b", n.RotationChallenge())
		if err := n.StartRotation(sealed); err != nil {
			t.Fatal(err)
		}
		if err := n.StartRotation(seal("a", "starling", "c", n.RotationChallenge())); !errors.Is(err, ErrRotating) && !errors.Is(err, keyring.ErrUnfinished) {
			t.Errorf("a second one: %v, want it refused", err)
		}
		f.within(time.Minute, "done", func() bool { return !n.Rotation().Running })
		if state := n.Rotation(); state.Err != nil || state.Target != secret("b").Fingerprint() || state.Phase != keyring.Remove || state.Acknowledged != 4 || state.Ended.Before(state.Started) {
			t.Errorf("in the end: %+v", state)
		}
		if !f.allHold("b")() {
			t.Error("not all hold the new key")
		}
		if err := n.StartRotation(sealed); !errors.Is(err, keyring.ErrRequest) {
			t.Errorf("the same again: %v, want it refused", err)
		}
		again := seal("b", "starling", "c", n.RotationChallenge())
		if err := n.StartRotation(again); err != nil {
			t.Errorf("the next one: %v", err)
		}
		f.within(time.Minute, "the next one is done", func() bool { return !n.Rotation().Running && f.allHold("c")() })
		if err := n.StartRotation(again); !errors.Is(err, keyring.ErrRequest) {
			t.Errorf("the next one again: %v, want it refused", err)
		}
		f.within(5*time.Second, "another node is told of it", func() bool { // who holds the key says so in its record
			return !slices.ContainsFunc(f.nodes[2].Keys(), func(k NodeKeys) bool {
				return k.Primary != secret("c").Fingerprint() || !slices.Equal(k.Installed, []string{k.Primary}) || k.Serial != 6
			})
		})
		if n, err := New(f.config(7)); err == nil {
			if err := n.StartRotation(sealed); !errors.Is(err, ErrNoKey) {
				t.Errorf("without a key: %v", err)
			}
			closeQuietly(n)
		}
	})
}

// A stopping node ends the rotation that it leads, and says so.
func TestARotationEndsWithItsNode(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4, withKey("a"))
		breakDisk(f.nodes[3]) // so that it does not get far
		sealed := keyring.Seal(secret("a"), "starling", f.nodes[1].RotationChallenge(), keyring.Request{Next: secret("b")})
		if err := f.nodes[1].StartRotation(sealed); err != nil {
			t.Fatal(err)
		}
		r := f.rotate(f.nodes[2], "b", RotateOptions{})
		time.Sleep(5 * time.Second)
		if !f.nodes[1].Rotation().Running {
			t.Errorf("it ended: %+v", f.nodes[1].Rotation())
		}
		for _, i := range []int{1, 2} {
			f.nodes[i].stop()
			<-f.nodes[i].result
			f.nodes[i].result <- nil
		}
		if state := f.nodes[1].Rotation(); state.Running || !errors.Is(state.Err, ErrNotRunning) {
			t.Errorf("after its end: %+v", state)
		}
		if err := f.ends(r, time.Second); !errors.Is(err, ErrNotRunning) {
			t.Errorf("RotateKey: %v, want %v", err, ErrNotRunning)
		}
		fresh := keyring.Seal(secret("a"), "starling", f.nodes[1].RotationChallenge(), keyring.Request{Next: secret("b")})
		if err := f.nodes[1].StartRotation(fresh); !errors.Is(err, ErrNotRunning) {
			t.Errorf("at a node that has ended: %v, want %v", err, ErrNotRunning)
		}
	})
}

// Requests that do not open are cheap, and challenges that nobody answers are not remembered.
func TestChallengesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		var c challenges
		c.init()
		for range 2 * maxChallenges {
			c.issue()
		}
		if len(c.used) != 0 {
			t.Errorf("%d challenges are remembered that nobody answered", len(c.used))
		}
		refused := 0
		for range 2 * maxChallenges {
			if c.take(c.issue()) != nil {
				refused++
			}
		}
		if refused != maxChallenges || len(c.used) != maxChallenges {
			t.Errorf("%d refused and %d remembered, want %d of each", refused, len(c.used), maxChallenges)
		}
		time.Sleep(challengeLife + time.Second)
		if err := c.take(c.issue()); err != nil || len(c.used) != 1 {
			t.Errorf("after their life: %v, %d remembered", err, len(c.used))
		}
	})
}
