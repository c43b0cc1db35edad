package zkstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"starling/master/store"
	"starling/master/store/storetest"
	"starling/master/zookeeper"
	"starling/master/zookeeper/zktest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func run(t testing.TB, c *zookeeper.Client, err error) *zookeeper.Client {
	t.Helper()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return c
}

// open returns a client of real servers, or of what stands before them.
func open(t testing.TB, hosts, auth, path string) *zookeeper.Client {
	t.Helper()
	u, err := zookeeper.Parse("zk://" + auth + hosts + path)
	must(t, err)
	c, err := zookeeper.New(zookeeper.Config{
		URL: u, SessionTimeout: 4 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	return run(t, c, err)
}

func openFake(t testing.TB, f *zookeeper.Fake) *zookeeper.Client {
	t.Helper()
	u, err := zookeeper.Parse("zk://h/mesos")
	must(t, err)
	c, err := f.New(zookeeper.Config{URL: u})
	return run(t, c, err)
}

func TestStoreOnTheFake(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return New(openFake(t, new(zookeeper.Fake))) })
}

func TestDamageOnTheFake(t *testing.T) {
	storetest.RunDamaged(t, func(t *testing.T) (store.Store, func(string)) { return damageable(t, openFake(t, new(zookeeper.Fake))) })
}

func damageable(t *testing.T, client *zookeeper.Client) (*Store, func(key string)) {
	return New(client), func(key string) {
		_, err := client.Multi(soon(t), zookeeper.SetOp(docNode(key), []byte("what?"), zookeeper.Any))
		must(t, err)
	}
}

func TestStoreOnARealServer(t *testing.T) {
	zktest.Need(t)
	e := zktest.Start(t, zktest.Options{})
	paths := 0
	storetest.Run(t, func(t *testing.T) store.Store {
		paths++
		return New(open(t, e.Hosts(), "user:pass@", fmt.Sprintf("/some/mesos%d", paths)))
	})
	storetest.RunDamaged(t, func(t *testing.T) (store.Store, func(string)) {
		return damageable(t, open(t, e.Hosts(), "user:pass@", "/some/damaged"))
	})
}

func write(t testing.TB, s store.Store, ops ...store.Op) []uint64 {
	t.Helper()
	v, err := s.Write(soon(t), ops...)
	must(t, err)
	return v
}

func put(key, data string) store.Op {
	return store.Op{Key: key, Version: store.Any, Data: []byte(data)}
}

func want(t testing.TB, s store.Store, key, data string) store.Document {
	t.Helper()
	d, err := s.Get(soon(t), key)
	if err != nil || string(d.Data) != data {
		t.Fatalf("want %q at %q, got %q (%v)", short(data), key, short(string(d.Data)), err)
	}
	return d
}

func short(s string) string { return s[:min(len(s), 40)] }

// What is on the servers must be readable by every later release.
func TestTheFormatIsAsWritten(t *testing.T) {
	f := new(zookeeper.Fake)
	client := openFake(t, f)
	s := New(client)
	write(t, s, put("frameworks/ä b", "1"))
	write(t, s, put("frameworks/ä b", "two\nlines"))
	write(t, s, store.Op{Key: "gone", Version: store.Any, Delete: true})
	read := func(node string) string {
		t.Helper()
		data, _, err := client.Get(soon(t), node)
		must(t, err)
		return string(data)
	}
	if got, want := read("starling/documents/frameworks%2F%C3%A4%20b"), "1 2\ntwo\nlines"; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	h, _, err := s.readHead(soon(t))
	must(t, err)
	if got, want := read("starling/head"), `{"format":1,"version":3,"last":"`+h.Last+`"}`; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	got := encodeOps([]store.Op{{Key: "a", Data: []byte("12")}, {Key: "b", Delete: true, Data: []byte("x")}, {Key: "c"}})
	if diff := cmp.Diff("\x00\x01a\x0212\x01\x01b\x00\x00\x01c\x00", string(got)); diff != "" {
		t.Errorf("staged operations (-want +got):\n%s", diff)
	}
}

func TestDamagedAndNewerNodesAreToldNotGuessed(t *testing.T) {
	client := openFake(t, new(zookeeper.Fake))
	s := New(client)
	v := write(t, s, put("a", "1"), put("b", "1"))
	ctx := soon(t)
	set := func(node, data string) {
		t.Helper()
		_, err := client.Multi(ctx, zookeeper.SetOp(node, []byte(data), zookeeper.Any))
		must(t, err)
	}
	for _, data := range []string{"", "1", "1 x\n", "1 0\n", "1 +1\n", "2 1\nx", "1 18446744073709551615\n"} {
		set("starling/documents/a", data)
		if _, err := New(client).Get(ctx, "a"); err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: want an error that tells of the damage, got %v", data, err)
		}
		if _, err := New(client).Write(ctx, store.Op{Key: "a", Version: v[0], Data: []byte("x")}); err == nil {
			t.Errorf("%q was overwritten", data)
		}
		want(t, s, "b", "1")
	}
	for _, data := range []string{"", "{", `{"format":2}`, `{"format":1,"version":18446744073709551615}`} {
		set("starling/head", data)
		if _, err := New(client).Write(ctx, put("b", "x")); err == nil {
			t.Errorf("head %q: want an error", data)
		}
	}
}

func TestWhatOthersKeepBesideIsLeftAlone(t *testing.T) {
	client := openFake(t, new(zookeeper.Fake))
	s := New(client)
	write(t, s, put("a", "1"))
	_, err := client.Create(soon(t), "starling/documents/a b", []byte("foreign"), zookeeper.Persistent, zookeeper.Public)
	must(t, err)
	docs, err := s.List(soon(t), "")
	if err != nil || len(docs) != 1 || docs[0].Key != "a" {
		t.Errorf("want document a alone, got %v (%v)", docs, err)
	}
}

// race has several stores count in one document, and checks that no count is lost.
func race(t *testing.T, stores []*Store, rounds int) {
	t.Helper()
	ctx := soon(t)
	var group sync.WaitGroup
	for _, s := range stores {
		group.Go(func() {
			for done := 0; done < rounds; {
				d, err := s.Get(ctx, "count")
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
					return
				}
				_, err = s.Write(ctx, store.Op{Key: "count", Version: d.Version, Data: append(d.Data, 'x')})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	want(t, stores[0], "count", strings.Repeat("x", len(stores)*rounds))
}

func TestStoresThatRaceLoseNothing(t *testing.T) {
	f := new(zookeeper.Fake)
	var stores []*Store
	for range 5 {
		stores = append(stores, New(openFake(t, f)))
	}
	race(t, stores, 20)
}

func TestAListIsOfOneMoment(t *testing.T) {
	f := new(zookeeper.Fake)
	writer, reader := New(openFake(t, f)), New(openFake(t, f))
	pair := func(i int) []store.Op {
		return []store.Op{put("a", fmt.Sprint(i)), put("b", fmt.Sprint(i)), {Key: fmt.Sprint("c", i%2), Version: store.Any, Delete: true}, put(fmt.Sprint("c", (i+1)%2), fmt.Sprint(i))}
	}
	write(t, writer, pair(0)...)
	done := make(chan struct{})
	ctx := soon(t)
	go func() {
		defer close(done)
		for i := range 200 {
			if _, err := writer.Write(ctx, pair(i)...); err != nil {
				t.Error(err)
			}
		}
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		docs, err := reader.List(ctx, "")
		must(t, err)
		if len(docs) != 3 || string(docs[0].Data) != string(docs[1].Data) || string(docs[0].Data) != string(docs[2].Data) ||
			docs[0].Version != docs[2].Version {
			t.Fatalf("a list of two moments: %v", docs)
		}
	}
}

// large returns a transaction that takes three packets at least.
func large(data string) []store.Op {
	var ops []store.Op
	for i := range 4 {
		ops = append(ops, put(fmt.Sprintf("large/%d", i), data+strings.Repeat("x", store.MaxSize/2)))
	}
	return append(ops, store.Op{Key: "old", Version: store.Any, Delete: true})
}

// A writer that dies leaves a large transaction in one of these states.
func TestALargeTransactionIsDoneAsAWholeByWhoeverComesNext(t *testing.T) {
	for _, tt := range []struct {
		name string
		// leave does as much of it as the writer came to.
		leave func(t *testing.T, s *Store, w *attempt)
		done  bool
	}{
		{"staged only", func(t *testing.T, s *Store, w *attempt) {
			_, err := s.stage(soon(t), w)
			must(t, err)
		}, false},
		{"valid, and nothing carried out", commit, true},
		{"valid, and the first of it carried out", func(t *testing.T, s *Store, w *attempt) {
			commit(t, s, w)
			n, err := s.apply(soon(t), w.ops)
			must(t, err)
			if n == 0 || n >= len(w.ops) {
				t.Fatalf("want some of it, got %d", n)
			}
		}, true},
		{"valid, and all of it carried out", func(t *testing.T, s *Store, w *attempt) {
			commit(t, s, w)
			for rest := w.ops; len(rest) > 0; {
				n, err := s.apply(soon(t), rest)
				must(t, err)
				rest = rest[n:]
			}
		}, true},
	} {
		for _, reader := range []string{"get", "list", "write"} {
			t.Run(tt.name+", then a "+reader, func(t *testing.T) {
				f := new(zookeeper.Fake)
				dying, next := New(openFake(t, f)), New(openFake(t, f))
				before := write(t, next, put("old", "1"), put("large/0", "before"))[0]
				must(t, dying.load(soon(t)))
				w := &attempt{id: newID(), ops: large("after")}
				tt.leave(t, dying, w)
				expected := map[string]string{"old": "1", "large/0": "before"}
				if tt.done {
					expected = map[string]string{}
					for _, op := range w.ops[:4] {
						expected[op.Key] = string(op.Data)
					}
				}
				switch reader {
				case "get":
					data, ok := expected["large/3"]
					if !ok {
						if _, err := next.Get(soon(t), "large/3"); !errors.Is(err, store.ErrNotFound) {
							t.Errorf("want %v, got %v", store.ErrNotFound, err)
						}
						break
					}
					if d := want(t, next, "large/3", data); d.Version <= before {
						t.Errorf("want a version above %d, got %d", before, d.Version)
					}
				case "write":
					write(t, next, put("large/1", "later"))
					expected["large/1"] = "later"
				}
				docs, err := next.List(soon(t), "")
				must(t, err)
				got := map[string]string{}
				for _, d := range docs {
					got[d.Key] = string(d.Data)
				}
				if diff := cmp.Diff(expected, got, cmp.Transformer("short", short)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if tt.done {
					if left := f.Nodes("/mesos/starling/staged/"); len(left) > 0 {
						t.Errorf("parts are left: %q", left)
					}
					// The one that was slow wakes up, and changes nothing any more.
					if err := dying.finish(soon(t), w.ops); !errors.Is(err, errMoved) {
						t.Errorf("want %v, got %v", errMoved, err)
					}
					if reader == "write" {
						want(t, next, "large/1", "later")
					}
				}
			})
		}
	}
}

// commit makes a large transaction valid, and goes no further.
func commit(t *testing.T, s *Store, w *attempt) {
	t.Helper()
	ctx := soon(t)
	p, err := s.stage(ctx, w)
	must(t, err)
	s.head = &head{Format: format, Version: s.head.Version + 1, Last: w.id, Pending: p}
	data := fmt.Sprintf(`{"format":1,"version":%d,"last":%q,"pending":{"id":%q,"parts":%d}}`, s.head.Version, w.id, p.ID, p.Parts)
	versions, err := s.client.Multi(ctx, zookeeper.SetOp(nodeHead, []byte(data), s.at))
	must(t, err)
	s.at = versions[0]
}

func TestManySmallOperationsAreOneTransaction(t *testing.T) {
	s := New(openFake(t, new(zookeeper.Fake)))
	var ops []store.Op
	for i := range 2*maxOps + 1 {
		ops = append(ops, put(fmt.Sprint(i), "x"))
	}
	v := write(t, s, ops...)
	docs, err := s.List(soon(t), "")
	must(t, err)
	if len(docs) != len(ops) || docs[0].Version != v[0] || docs[len(docs)-1].Version != v[0] {
		t.Errorf("want %d documents of version %d, got %d", len(ops), v[0], len(docs))
	}
}

func TestAWriteOutlivesABreakOfTheConnection(t *testing.T) {
	f := new(zookeeper.Fake)
	client := openFake(t, f)
	s := New(client)
	write(t, s, put("a", "1"))
	f.Disconnect(client)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Write(ctx, put("a", "2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("write: want %v, got %v", context.DeadlineExceeded, err)
	}
	if _, err := s.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("get: want %v, got %v", context.DeadlineExceeded, err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Write(soon(t), put("a", "3"))
		done <- err
	}()
	f.Reconnect(client)
	must(t, <-done)
	want(t, s, "a", "3")
	f.Stop()
	f.Wipe()
	f.Start()
	write(t, s, put("b", "1")) // a new store
	if _, err := s.Get(soon(t), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("want %v, got %v", store.ErrNotFound, err)
	}
}

// Answers are lost at random moments: each write is done once, or, where it says so, perhaps.
func TestLostAnswersLoseNoWrites(t *testing.T) {
	zktest.Need(t)
	e := zktest.Start(t, zktest.Options{})
	p := zktest.NewProxy(t, e)
	s := New(open(t, p.Addr(), "", "/mesos"))
	ctx := soon(t)
	stop := make(chan struct{})
	var written atomic.Int64
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for last := int64(-1); ; {
			select {
			case <-tick.C:
				// A machine on which a connection takes longer than that would never come to write.
				if now := written.Load(); now != last {
					p.Cut()
					p.Heal()
					last = now
				}
			case <-stop:
				return
			}
		}
	})
	var version uint64
	text := ""
	for range 150 {
		v, err := s.Write(ctx, store.Op{Key: "count", Version: version, Data: []byte(text + "x")})
		if err != nil {
			// With nobody else writing, the answer can always be found out.
			t.Fatalf("after %d writes: %v", len(text), err)
		}
		version, text = v[0], text+"x"
		written.Add(1)
	}
	close(stop)
	group.Wait()
	if d := want(t, s, "count", text); d.Version != version {
		t.Errorf("want version %d, got %d", version, d.Version)
	}
}

func TestDocumentsAreTheirOwnersAlone(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	write(t, New(open(t, e.Hosts(), "user:pass@", "/mesos")), put("a", "secret"))
	for _, auth := range []string{"", "user:guess@"} {
		client := open(t, e.Hosts(), auth, "/mesos")
		if d, err := New(client).Get(soon(t), "a"); !errors.Is(err, zookeeper.ErrNoAuth) {
			t.Errorf("%q: want %v, got %q (%v)", auth, zookeeper.ErrNoAuth, d.Data, err)
		}
		if _, err := New(client).Write(soon(t), put("a", "x")); !errors.Is(err, zookeeper.ErrNoAuth) {
			t.Errorf("%q: want %v, got %v", auth, zookeeper.ErrNoAuth, err)
		}
		if names, err := client.Children(soon(t), "starling/documents"); !errors.Is(err, zookeeper.ErrNoAuth) {
			t.Errorf("%q: want %v, got %q (%v)", auth, zookeeper.ErrNoAuth, names, err)
		}
	}
}

func TestAnEnsembleLosesItsLeaderWhileDocumentsAreWritten(t *testing.T) {
	e := zktest.Start(t, zktest.Options{Servers: 3})
	one, two := New(open(t, e.Hosts(), "", "/mesos")), New(open(t, e.Hosts(), "", "/mesos"))
	for i := range 3 {
		leader := e.AwaitLeader()
		leader.Kill()
		write(t, one, put(fmt.Sprint(i), strings.Repeat("x", 2000)))
		leader.Start()
		leader.Wait()
		want(t, two, fmt.Sprint(i), strings.Repeat("x", 2000))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encodeDoc(7, []byte("data")))
	f.Add(encodeOps([]store.Op{put("a", "1"), {Key: "b", Delete: true}}))
	f.Add([]byte("1 \n"))
	f.Add([]byte("\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if version, content, err := decodeDoc(data); err == nil {
			v, c, err := decodeDoc(encodeDoc(version, content))
			if err != nil || v != version || string(c) != string(content) {
				t.Errorf("%q is read as %d %q, and then as %d %q (%v)", data, version, content, v, c, err)
			}
		}
		if ops, err := decodeOps(data); err == nil {
			again, err := decodeOps(encodeOps(ops))
			if err != nil || len(again) != len(ops) {
				t.Errorf("%q is read as %d operations, and then as %d (%v)", data, len(ops), len(again), err)
			}
		}
		if key, ok := docKey(string(data)); ok && docNode(key) != dirDocuments+"/"+string(data) {
			t.Errorf("%q is key %q, which is node %q", data, key, docNode(key))
		}
	})
}

// BenchmarkWrite writes a document of 2 KB, as a framework's, on three servers that sync. Budget: 20 ms.
func BenchmarkWrite(b *testing.B) {
	e := zktest.Start(b, zktest.Options{Servers: 3, Sync: true})
	s := New(open(b, e.Hosts(), "", "/mesos"))
	data := strings.Repeat("x", 2000)
	b.ReportAllocs()
	for b.Loop() {
		write(b, s, put("frameworks/one", data))
	}
}

// BenchmarkList lists 2,000 documents of 2 KB. Budget: 3 s.
func BenchmarkList(b *testing.B) {
	e := zktest.Start(b, zktest.Options{Servers: 3})
	s := New(open(b, e.Hosts(), "", "/mesos"))
	var ops []store.Op
	for i := range 2000 {
		ops = append(ops, put(fmt.Sprintf("frameworks/%d", i), strings.Repeat("x", 2000)))
	}
	write(b, s, ops...)
	b.ReportAllocs()
	for b.Loop() {
		docs, err := s.List(soon(b), "frameworks/")
		if err != nil || len(docs) != len(ops) {
			b.Fatalf("want %d documents, got %d (%v)", len(ops), len(docs), err)
		}
	}
}
