package zkelection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"starling/master/election"
	"starling/master/election/electiontest"
	"starling/master/store"
	"starling/master/store/storetest"
	"starling/master/zookeeper"
	"starling/master/zookeeper/zktest"
)

// Sessions of sessionTimeout are to expire in a test, on the fake. Those of slowSession are to as well, on real servers, and not
// before: a busy machine may take a second for a heartbeat. Those of longSession are not to expire at all.
const (
	patience       = time.Minute
	sessionTimeout = 2 * time.Second
	slowSession    = 6 * time.Second
	longSession    = 30 * time.Second
)

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// runClient runs a client until the end of the test, or until the function returned is called.
func runClient(t testing.TB, c *zookeeper.Client, err error) (stop func()) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

func parse(t testing.TB, value string) zookeeper.URL {
	t.Helper()
	u, err := zookeeper.Parse(value)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestElectionOnTheFake(t *testing.T) {
	electiontest.Run(t, func(t *testing.T) electiontest.Election {
		f, s := new(zookeeper.Fake), new(storetest.Fake)
		clients := map[election.Contender]*zookeeper.Client{}
		return electiontest.Election{
			Join: func(t *testing.T) (election.Contender, election.Detector) {
				c, err := f.New(zookeeper.Config{URL: parse(t, "zk://h/some/mesos"), SessionTimeout: longSession})
				runClient(t, c, err)
				contender := New(Config{Client: c, Store: s})
				clients[contender] = c
				return contender, NewDetector(c, nil)
			},
			Expire: func(_ *testing.T, c election.Contender) { f.Expire(clients[c]) },
		}
	})
}

func TestElectionOnARealServer(t *testing.T) {
	zktest.Need(t)
	servers := zktest.Start(t, zktest.Options{})
	paths := 0
	electiontest.Run(t, func(t *testing.T) electiontest.Election {
		paths++
		path, s := fmt.Sprintf("/some/mesos%d", paths), new(storetest.Fake)
		proxies := map[election.Contender]*zktest.Proxy{}
		return electiontest.Election{
			Patience: patience,
			Join: func(t *testing.T) (election.Contender, election.Detector) {
				p := zktest.NewProxy(t, servers)
				c, err := zookeeper.New(zookeeper.Config{URL: parse(t, "zk://u:p@"+p.Addr()+path), SessionTimeout: longSession})
				runClient(t, c, err)
				contender := New(Config{Client: c, Store: s, Log: testLog(t)})
				proxies[contender] = p
				return contender, NewDetector(c, nil)
			},
			Expire: func(_ *testing.T, c election.Contender) { proxies[c].Expire() },
		}
	})
}

// stander is a contender whose terms a test follows.
type stander struct {
	t      testing.TB
	client *zookeeper.Client
	terms  chan leading
	last   leading
	stop   func() // and wait for the end
}

type leading struct {
	ctx  context.Context
	term election.Term
	at   time.Time
}

func candidate(name string) election.Candidate {
	return election.Candidate{ID: name, Hostname: name + ".example.com", Address: "10.0.0.1", Port: 5050, Version: "1.11.0"}
}

// stand runs a contender whose leads end with their terms.
func stand(t testing.TB, client *zookeeper.Client, s store.Store, name string) *stander {
	t.Helper()
	st := &stander{t: t, client: client, terms: make(chan leading, 16)}
	st.run(New(Config{Client: client, Store: s, Log: testLog(t)}), name)
	return st
}

func (s *stander) run(c *Contender, name string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := c.Run(ctx, candidate(name), func(ctx context.Context, term election.Term) error {
			s.terms <- leading{ctx, term, time.Now()}
			<-ctx.Done()
			return nil
		})
		if err != nil {
			s.t.Errorf("contender %q: %v", name, err)
		}
	}()
	s.stop = func() {
		cancel()
		<-done
	}
	s.t.Cleanup(s.stop)
}

func (s *stander) leads() leading {
	s.t.Helper()
	select {
	case l := <-s.terms:
		return l
	case <-time.After(patience):
		s.t.Fatal("it does not lead")
		panic("unreachable")
	}
}

func over(t testing.TB, l leading) {
	t.Helper()
	select {
	case <-l.ctx.Done():
	case <-time.After(patience):
		t.Fatal("the term does not end")
	}
	if cause := context.Cause(l.ctx); !errors.Is(cause, election.ErrLeaseLost) {
		t.Errorf("want cause %v, got %v", election.ErrLeaseLost, cause)
	}
	if err := l.term.Holds(); !errors.Is(err, election.ErrLeaseLost) {
		t.Errorf("a term that is over holds: %v", err)
	}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fakeClient(t testing.TB, f *zookeeper.Fake) *zookeeper.Client {
	t.Helper()
	c, err := f.New(zookeeper.Config{URL: parse(t, "zk://h/mesos"), SessionTimeout: sessionTimeout})
	runClient(t, c, err)
	return c
}

// until waits for a detector to tell of the leader with that id, "" for none.
func until(t testing.TB, d *Detector, known *election.Candidate, id string) *election.Candidate {
	t.Helper()
	ctx := soon(t)
	for {
		if known == nil && id == "" || known != nil && known.ID == id {
			return known
		}
		leader, err := d.Leader(ctx, known)
		if err != nil {
			t.Fatalf("want leader %q, known is %v: %v", id, known, err)
		}
		known = leader
	}
}

func TestTheNodeIsThatOfMesos(t *testing.T) {
	f := new(zookeeper.Fake)
	client := fakeClient(t, f)
	stand(t, client, new(storetest.Fake), "0a6d1c1e-8f0b-4c55-9f6e-7d0f3a1b2c3d").leads()
	ctx := soon(t)
	names, err := client.Children(ctx, "")
	must(t, err)
	if !slices.Equal(names, []string{"json.info_0000000000"}) {
		t.Errorf("want json.info_0000000000, got %q", names)
	}
	data, _, err := client.Get(ctx, names[0])
	must(t, err)
	want := `{"address":{"hostname":"0a6d1c1e-8f0b-4c55-9f6e-7d0f3a1b2c3d.example.com","ip":"10.0.0.1","port":5050},` +
		`"capabilities":[{"type":"AGENT_UPDATE"},{"type":"AGENT_DRAINING"},{"type":"QUOTA_V2"}],` +
		`"hostname":"0a6d1c1e-8f0b-4c55-9f6e-7d0f3a1b2c3d.example.com","id":"0a6d1c1e-8f0b-4c55-9f6e-7d0f3a1b2c3d",` +
		`"ip":16777226,"pid":"master@10.0.0.1:5050","port":5050,"version":"1.11.0"}`
	if diff := cmp.Diff(object(t, want), object(t, string(data))); diff != "" {
		t.Errorf("the node (-want +got):\n%s", diff)
	}
}

func object(t *testing.T, text string) (out map[string]any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &out))
	return out
}

func TestChildrenAreOrderedAsMesosDoes(t *testing.T) {
	var got []string
	for _, m := range members([]string{
		"json.info_0000000012", "log_replicas", "info_0000000002", "starling", "0000000007", "json.info_", "x_0000000001",
		"json.info_10000000000", "json.info_+1", "json_info_0000000001", "json.info_x", "_0000000001", "", "json.info_0000000003", "json.info_x_0000000004",
	}) {
		got = append(got, m.name)
	}
	want := []string{"info_0000000002", "json.info_0000000003", "json.info_x_0000000004", "0000000007", "json.info_0000000012", "json.info_10000000000"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestADetectorReadsWhatMastersOfAllTimesWrote(t *testing.T) {
	f := new(zookeeper.Fake)
	client := fakeClient(t, f)
	d := NewDetector(client, testLog(t))
	ctx := soon(t)
	type found struct {
		leader *election.Candidate
		err    error
	}
	first := make(chan found)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if leader, err := d.Leader(short, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a path: want nobody and no news, got %v (%v)", leader, err)
	}
	go func() {
		leader, err := d.Leader(ctx, nil)
		first <- found{leader, err}
	}()
	must(t, client.MakePath(ctx, zookeeper.Public))
	put := func(name, data string) {
		t.Helper()
		_, err := client.Create(ctx, name, []byte(data), zookeeper.Ephemeral, zookeeper.Public)
		must(t, err)
	}
	put("log_replicas", "")
	put("json.info_0000000009", `{"id":"nine","ip":151587081,"port":5059,"hostname":"h9","pid":"master@9.9.9.9:5059","new":{"x":1}}`)
	got := <-first
	must(t, got.err)
	want := election.Candidate{ID: "nine", Hostname: "h9", Address: "9.9.9.9", Port: 5059}
	if got.leader == nil || *got.leader != want {
		t.Fatalf("want %v, got %v", want, got.leader)
	}
	put("0000000008", "master@10.0.0.8:5058")
	known := until(t, d, got.leader, "master@10.0.0.8:5058")
	if known.Address != "10.0.0.8" || known.Port != 5058 {
		t.Errorf("got %+v", known)
	}
	put("info_0000000007", "\x0a\x05seven\x10\x8a\x80\x80\x38\x18\xba\x27")
	known = until(t, d, known, "seven")
	if known.Address != "10.0.0.7" || known.Port != 5050 {
		t.Errorf("got %+v", known)
	}
	put("json.info_0000000006", `{"id":"six"`)
	until(t, d, known, "")
	must(t, client.Delete(ctx, "json.info_0000000006", zookeeper.Any))
	until(t, d, nil, "seven")
}

func TestALostAnswerLeavesNoSecondNode(t *testing.T) {
	f := new(zookeeper.Fake)
	client := fakeClient(t, f)
	ctx := soon(t)
	must(t, client.MakePath(ctx, zookeeper.Public))
	data, err := encode(candidate("one"))
	must(t, err)
	// What was made by calls whose answers never came, before and, late, after the contender looked.
	for range 2 {
		_, err = client.Create(ctx, "json.info_", data, zookeeper.EphemeralSequential, zookeeper.Public)
		must(t, err)
	}
	other := fakeClient(t, f)
	_, err = other.Create(ctx, "json.info_", data, zookeeper.EphemeralSequential, zookeeper.Public)
	must(t, err)
	one := stand(t, client, new(storetest.Fake), "one")
	one.leads()
	names, err := client.Children(ctx, "")
	must(t, err)
	slices.Sort(names)
	if want := []string{"json.info_0000000000", "json.info_0000000002"}; !slices.Equal(names, want) {
		t.Errorf("want %q, got %q", want, names)
	}

	waiting := stand(t, other, new(storetest.Fake), "two") // its node is that of another candidate
	own := func() (own []string) {
		names, err := client.Children(ctx, "")
		must(t, err)
		for _, name := range names {
			stat, there, err := client.Stat(ctx, name)
			must(t, err)
			if session, _ := other.Session(); there && stat.EphemeralOwner == session {
				own = append(own, name)
			}
		}
		return own
	}
	await(t, "a node of its own", func() bool { o := own(); return len(o) == 1 && o[0] == "json.info_0000000003" })
	_, err = other.Create(ctx, "json.info_", data, zookeeper.EphemeralSequential, zookeeper.Public)
	must(t, err)
	await(t, "the late node to go", func() bool { o := own(); return len(o) == 1 && o[0] == "json.info_0000000003" })
	one.stop()
	waiting.leads()
}

func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestALeaderWhoseNodeIsTakenAwayStepsDown(t *testing.T) {
	f := new(zookeeper.Fake)
	client := fakeClient(t, f)
	one := stand(t, client, new(storetest.Fake), "one")
	first := one.leads()
	must(t, client.Delete(soon(t), "json.info_0000000000", zookeeper.Any))
	over(t, first)
	if second := one.leads(); second.term.Epoch <= first.term.Epoch {
		t.Errorf("want an epoch above %d, got %d", first.term.Epoch, second.term.Epoch)
	}
}

func TestTheEpochBeginsAboveWhatWasHeard(t *testing.T) {
	f := new(zookeeper.Fake)
	client := fakeClient(t, f)
	ctx, cancel := context.WithCancel(soon(t))
	var epoch uint64
	err := New(Config{Client: client, Store: new(storetest.Fake), Heard: func() uint64 { return 41 }}).
		Run(ctx, candidate("one"), func(_ context.Context, term election.Term) error {
			epoch = term.Epoch
			cancel()
			return nil
		})
	if epoch != 42 || err != nil {
		t.Errorf("want epoch 42, got %d (%v)", epoch, err)
	}
}

func TestAStoreThatFailsForOneLeavesTheLeadToAnother(t *testing.T) {
	f := new(zookeeper.Fake)
	broken := new(storetest.Fake)
	broken.Fail(errors.New("disk is full"))
	one := stand(t, fakeClient(t, f), broken, "one")
	stand(t, fakeClient(t, f), new(storetest.Fake), "two").leads()
	if len(one.terms) > 0 {
		t.Error("one leads without an epoch")
	}
}

// Everything that a ZooKeeper can do to three contenders, which none of them is restarted for.
func TestZooKeeperMayFailInAnyWay(t *testing.T) {
	f, s := new(zookeeper.Fake), new(storetest.Fake)
	f.Stop() // not there at the start
	clients := map[string]*zookeeper.Client{}
	terms := make(chan leading, 100)
	var mu sync.Mutex
	leads := map[string]int{}
	for _, name := range []string{"one", "two", "three"} {
		client := fakeClient(t, f)
		clients[name] = client
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- New(Config{Client: client, Store: s}).Run(ctx, candidate(name), func(ctx context.Context, term election.Term) error {
				mu.Lock()
				leads[name]++
				if leads[name] > 1 {
					t.Errorf("%s leads twice at once", name)
				}
				mu.Unlock()
				terms <- leading{context.WithValue(ctx, nameKey{}, name), term, time.Now()}
				<-ctx.Done()
				mu.Lock()
				leads[name]--
				mu.Unlock()
				return nil
			})
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	watcher := NewDetector(fakeClient(t, f), nil)
	epoch := uint64(0)
	next := func(what string) leading {
		t.Helper()
		select {
		case l := <-terms:
			if l.term.Epoch <= epoch {
				t.Errorf("%s: want an epoch above %d, got %d", what, epoch, l.term.Epoch)
			}
			epoch = l.term.Epoch
			return l
		case <-time.After(patience):
			t.Fatalf("%s: nobody leads", what)
			panic("unreachable")
		}
	}
	name := func(l leading) string { return l.ctx.Value(nameKey{}).(string) }

	f.Start()
	first := next("servers that come late")
	known := until(t, watcher, nil, name(first))

	f.Expire(clients[name(first)])
	second := next("an expired session")
	over(t, first)
	known = until(t, watcher, known, name(second))

	f.Stop()
	over(t, second)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if leader, err := watcher.Leader(short, known); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a detector without a connection: want no news, got %v (%v)", leader, err)
	}
	f.Start()
	third := next("a quorum that comes back")

	f.Stop()
	f.Wipe()
	over(t, third)
	f.Start()
	fourth := next("servers that come back empty")
	until(t, watcher, known, name(fourth))

	f.Disconnect(clients[name(fourth)])
	fifth := next("a leader that is cut off")
	if name(fifth) == name(fourth) {
		t.Errorf("%s leads and is cut off", name(fifth))
	}
	if fourth.term.Holds() == nil {
		t.Error("two lead at once")
	}
	over(t, fourth)
	f.Reconnect(clients[name(fourth)])
	until(t, watcher, nil, name(fifth))
}

type nameKey struct{}

func TestAQuorumThatIsLostForTenMinutesHasALeaderWithinFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := new(zookeeper.Fake), new(storetest.Fake)
		ctx, cancel := context.WithCancel(t.Context())
		terms := make(chan election.Term, 10)
		var group sync.WaitGroup
		for _, name := range []string{"one", "two", "three"} {
			client, err := f.New(zookeeper.Config{URL: parse(t, "zk://h/mesos"), SessionTimeout: 10 * time.Second})
			must(t, err)
			running, stop := context.WithCancel(context.Background())
			group.Go(func() {
				if err := client.Run(running); err != nil {
					t.Error(err)
				}
			})
			group.Go(func() {
				defer stop()
				err := New(Config{Client: client, Store: s}).Run(ctx, candidate(name), func(ctx context.Context, term election.Term) error {
					terms <- term
					<-ctx.Done()
					return nil
				})
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		first := <-terms
		time.Sleep(time.Hour)
		f.Stop()
		time.Sleep(10 * time.Minute)
		if first.Holds() == nil || len(terms) > 0 {
			t.Error("somebody leads without a quorum")
		}
		back := time.Now()
		f.Start()
		<-terms
		if after := time.Since(back); after > 5*time.Second {
			t.Errorf("want a leader within 5 s, got one after %v", after)
		}
		cancel()
		group.Wait()
	})
}

func TestTheSessionTimeoutOfALeaderBoundsTheGap(t *testing.T) {
	zktest.Need(t)
	e := zktest.Start(t, zktest.Options{})
	s := new(storetest.Fake)
	join := func(name string) (*stander, *zktest.Proxy) {
		p := zktest.NewProxy(t, e)
		c, err := zookeeper.New(zookeeper.Config{URL: parse(t, "zk://"+p.Addr()+"/mesos"), SessionTimeout: slowSession})
		runClient(t, c, err)
		return stand(t, c, s, name), p
	}
	one, p := join("one")
	first := one.leads()
	two, _ := join("two")
	until(t, NewDetector(two.client, nil), nil, "one")
	// The socket stays open, and nothing comes through: the term ends in silence, before another begins.
	p.Stall()
	over(t, first)
	silent := time.Now()
	second := two.leads()
	if gap := second.at.Sub(silent); gap < 0 {
		t.Errorf("the next leader began %v before the last one was silent", -gap)
	}
	p.Heal()
	two.stop()
	one.leads()
	if names, err := one.client.Children(soon(t), ""); err != nil || len(names) != 1 || !strings.HasPrefix(names[0], "json.info_") {
		t.Errorf("want one node, got %q (%v)", names, err)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := encode(candidate("one"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("json.info_0000000001", data)
	f.Add("info_0000000002", []byte("\x0a\x05seven\x10\x8a\x80\x80\x38\x18\xba\x27"))
	f.Add("0000000003", []byte("master@10.0.0.8:5058"))
	f.Add("json.info_-1", []byte(`{"id":"x","ip":1,"port":70000}`))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		m, ok := parseMember(name)
		if !ok {
			return
		}
		c, err := decode(m.label, data)
		if err != nil {
			return
		}
		again, err := encode(c)
		if err != nil {
			t.Fatalf("%q: read as %+v, which can't be written: %v", data, c, err)
		}
		if back, err := decode(labelJSON, again); err != nil || back != c {
			t.Errorf("%q: read as %+v, and then as %+v (%v)", data, c, back, err)
		}
	})
}

// BenchmarkFailover measures how long nobody leads after a leader's connection went dead, with a session of 2 s. Budget: 3 s.
func BenchmarkFailover(b *testing.B) {
	e := zktest.Start(b, zktest.Options{Servers: 3})
	s := new(storetest.Fake)
	var all []time.Duration
	for b.Loop() {
		p := zktest.NewProxy(b, e)
		url := fmt.Sprintf("/mesos%d", len(all))
		c, err := zookeeper.New(zookeeper.Config{URL: parse(b, "zk://"+p.Addr()+url), SessionTimeout: sessionTimeout})
		runClient(b, c, err)
		one := stand(b, c, s, "one")
		one.leads()
		c, err = zookeeper.New(zookeeper.Config{URL: parse(b, e.URL(url)), SessionTimeout: sessionTimeout})
		runClient(b, c, err)
		two := stand(b, c, s, "two")
		until(b, NewDetector(c, nil), nil, "one")
		p.Cut() // what the servers see of a process that was killed
		cut := time.Now()
		all = append(all, two.leads().at.Sub(cut))
		two.stop()
		one.stop()
	}
	report(b, all)
}

// BenchmarkHandOver measures how long nobody leads after a leader stopped in order. Budget: 1.5 s.
func BenchmarkHandOver(b *testing.B) {
	e := zktest.Start(b, zktest.Options{Servers: 3})
	s := new(storetest.Fake)
	var all []time.Duration
	for b.Loop() {
		url := fmt.Sprintf("/mesos%d", len(all))
		var standers [2]*stander
		for i := range standers {
			c, err := zookeeper.New(zookeeper.Config{URL: parse(b, e.URL(url)), SessionTimeout: sessionTimeout})
			runClient(b, c, err)
			standers[i] = stand(b, c, s, fmt.Sprint(i))
			until(b, NewDetector(c, nil), nil, "0")
		}
		standers[0].leads()
		stopped := time.Now()
		standers[0].stop()
		all = append(all, standers[1].leads().at.Sub(stopped))
		standers[1].stop()
	}
	report(b, all)
}

func report(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(all[0].Seconds(), "s/min")
	b.ReportMetric(all[len(all)/2].Seconds(), "s/median")
	b.ReportMetric(all[len(all)-1].Seconds(), "s/max")
}
