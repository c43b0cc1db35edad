package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// lineCounter counts warnings by what they say and of whom.
type lineCounter struct {
	mu    sync.Mutex
	lines map[string]int
}

func (c *lineCounter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (c *lineCounter) Handle(_ context.Context, r slog.Record) error {
	addr := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "addr" {
			addr = a.Value.String()
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines = map[string]int{}
	}
	c.lines[r.Message+" "+addr]++
	return nil
}
func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *lineCounter) WithGroup(string) slog.Handler      { return c }

// Whoever has another key or cluster name is told so, and those that it tries to join are: a line a minute and peer, at both ends.
func TestStrangersGetALineAMinuteAtBothEnds(t *testing.T) {
	const minutes = 5 // twice
	const refused, notJoined, hungUp = "refused what has another cluster key or name ", "not joined, it has another cluster key or name ", "not joined, it hung up: has it another cluster key or name? "
	for _, tt := range []struct {
		name   string
		change func(*Config)
		theirs string
		least  int // lines that the stranger sees
	}{
		{"another key", withKey("x"), notJoined, minutes},
		// Streams in memory have no buffers. Where the seed answers while the stranger still writes, both wait until they lose patience at
		// the same moment, and the stranger sees that its peer hung up only if that one was first, which is chance.
		{"no key", func(c *Config) { c.Key = nil }, hungUp, 1},
		{"another cluster", func(c *Config) { c.Key, c.Cluster = secret("a"), "other" }, hungUp, minutes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				var ours, theirs lineCounter
				f.start(0, func(c *Config) { c.Key, c.Log = secret("a"), slog.New(&ours) })
				f.start(1, withKey("a"))
				f.within(10*time.Second, "a mesh of two", func() bool { return whole(f.nodes[:2]) })
				f.start(2, func(c *Config) { tt.change(c); c.Log = slog.New(&theirs) })
				time.Sleep(minutes * time.Minute)
				_, before := f.net.Traffic()
				time.Sleep(minutes * time.Minute)
				_, after := f.net.Traffic()
				for i, want := range []int{2, 2, 1} {
					if got := len(f.nodes[i].Members()); got != want {
						t.Errorf("%s sees %d members, want %d", f.nodes[i].Self(), got, want)
					}
				}
				for _, end := range []struct {
					who  string
					c    *lineCounter
					line string
					want int
				}{{"the seed", &ours, refused, minutes}, {"the stranger", &theirs, tt.theirs, tt.least}} {
					end.c.mu.Lock()
					about := 0
					for line, n := range end.c.lines {
						if n > 2*minutes+1 {
							t.Errorf("%s: %d times in %d minutes: %s", end.who, n, 2*minutes, line)
						}
						if len(line) >= len(end.line) && line[:len(end.line)] == end.line {
							about += n
						}
					}
					if about < end.want || about > 2*minutes+1 {
						t.Errorf("%s: %d lines in %d minutes about the other, want %d to %d: %v", end.who, about, 2*minutes, end.want, 2*minutes+1, end.c.lines)
					}
					end.c.mu.Unlock()
				}
				t.Logf("%.0f B/s by all three", float64(after-before)/(minutes*60))
			})
		})
	}
}

// A stream that breaks before it has said whose it is may come from a member over a bad link, and is nothing to warn of.
func TestABrokenStreamIsNoStranger(t *testing.T) {
	for _, key := range []Secret{nil, secret("a")} {
		t.Run(fmt.Sprintf("key=%v", key != nil), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				var lines lineCounter
				f.form(1, func(c *Config) { c.Key, c.Log = key, slog.New(&lines) })
				a := newAttacker(t, f, key)
				whole := a.labelled([]byte{wireUser})
				for i := range len(whole) {
					closeQuietly(a.dial(whole[:i]))
					time.Sleep(2 * time.Minute) // each has its line
				}
				lines.mu.Lock()
				defer lines.mu.Unlock()
				if len(lines.lines) > 0 {
					t.Errorf("warnings: %v, want none", lines.lines)
				}
				if n := countOf(f.nodes[0].metrics.refusedForeign); n > 0 {
					t.Errorf("%v streams were counted as another cluster's, want none", n)
				}
			})
		})
	}
}

func TestWordsAboutStrangers(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.3:7946", "refused what has another cluster key or name 10.0.0.3:7946"},
		{`[ERR] memberlist: discarding packet with unacceptable label "other": from=10.0.0.3:7946`, "refused what has another cluster key or name 10.0.0.3:7946"},
		{"[DEBUG] memberlist: failed to join 10.0.0.3:7946: remote error: no installed keys could decrypt the message", "not joined, it has another cluster key or name 10.0.0.3:7946"},
		{"[DEBUG] memberlist: failed to join [fd00::1]:7946: EOF", "not joined, it hung up: has it another cluster key or name? [fd00::1]:7946"},
		{"[DEBUG] memberlist: failed to join 10.0.0.3:7946: dial 10.0.0.3:7946: connection refused", ""},
		{"[ERR] memberlist: failed to receive: EOF from=10.0.0.3:7946", ""},
		{"[ERR] memberlist: failed to receive and remove the stream label header: read tcp 10.0.0.1:7946->10.0.0.3:60000: i/o timeout from=10.0.0.3:60000", ""},
	} {
		var c lineCounter
		a := &logAdapter{log: slog.New(&c), now: time.Now, suspect: func(string) {}, streamOnly: func(string) {}, refused: func(bool) {}}
		for range 3 {
			fmt.Fprintln(a, tt.line)
		}
		if tt.want == "" && len(c.lines) > 0 || tt.want != "" && c.lines[tt.want] != 1 {
			t.Errorf("%s: %v, want one %q", tt.line, c.lines, tt.want)
		}
	}
}
