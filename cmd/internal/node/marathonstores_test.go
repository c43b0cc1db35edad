package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"starling/marathon"
	marathonapi "starling/marathon/api"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos/server"
	"starling/master/store"
	"starling/master/store/boltstore"
	"starling/master/store/zkstore"
	"starling/master/zookeeper"
	"starling/master/zookeeper/zktest"
)

// loading is the limit for a Marathon of manyApps to be ready, on a machine that it has to itself.
const (
	loading  = 3 * time.Second
	manyApps = 2000
)

// onStores does a test on each real store, which open opens again.
func onStores(t *testing.T, test func(t *testing.T, open func() store.Store)) {
	t.Run("bbolt", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "marathon.db")
		test(t, func() store.Store {
			documents, err := boltstore.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			return documents
		})
	})
	t.Run("zookeeper", func(t *testing.T) {
		zktest.Need(t)
		e := zktest.Start(t, zktest.Options{})
		u, err := zookeeper.Parse(e.URL("/marathon"))
		if err != nil {
			t.Fatal(err)
		}
		client, err := zookeeper.New(zookeeper.Config{URL: u, SessionTimeout: 10 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- client.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		test(t, func() store.Store { return zkstore.New(client) })
	})
}

// marathonOn runs a Marathon with its API on a store until end, and returns its URL and how long it took to be ready.
func marathonOn(t *testing.T, documents store.Store, master string, change ...func(*marathon.Config)) (m *marathon.Marathon, at string, took time.Duration, end func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	c := marathon.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User, c.Store, c.Log = []string{master}, "127.0.0.1", ln.Addr().String(), "nobody", documents, log
	for _, f := range change {
		f(&c)
	}
	if m, err = marathon.New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	begun := time.Now()
	go func() { ended <- m.Run(ctx) }()
	go func() { ended <- server.Serve(ctx, marathonapi.New(marathonapi.Config{Marathon: m, Log: log}), ln) }()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	deadline := time.After(time.Minute)
	for !m.Ready() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("marathon does not get ready")
		}
	}
	return m, "http://" + ln.Addr().String(), time.Since(begun), func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		}
		if err := documents.Close(); err != nil {
			t.Error(err)
		}
	}
}

func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// group is a group of so many apps, each with a label of so many bytes.
func group(id string, apps, label int) string {
	var b strings.Builder
	for n := range apps {
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"a%d","cmd":"sleep 1000","cpus":0.01,"mem":1,"instances":0,"labels":{"l":%q}}`, n, strings.Repeat("x", label))
	}
	return `{"id":"` + id + `","apps":[` + b.String() + `]}`
}

// slowness is how many times as long as by itself a computation takes, where others compute as well.
func slowness(t *testing.T) float64 {
	t.Helper()
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun, used := time.Now(), cpu()
	for cpu()-used < 100*time.Millisecond {
		continue
	}
	return max(1, float64(time.Since(begun))/float64(cpu()-used))
}

// Two thousand apps are ready within three seconds, from each store. Where the machine does other work the limit is as much longer as a
// computation takes, and of three starts one has to keep it.
func TestManyAppsAreLoadedSoon(t *testing.T) {
	onStores(t, func(t *testing.T, open func() store.Store) {
		master := mastertest.NewServer(t, mastertest.New(nil))
		_, at, _, end := marathonOn(t, open(), master.Address())
		begun := time.Now()
		if status, body := ask(t, "PUT", at+"/v2/groups/many", group("/many", manyApps, 1000)); status != 201 && status != 200 {
			t.Fatalf("%d %.300s", status, body)
		}
		t.Logf("%d apps of 1 KB written in one change: %v", manyApps, time.Since(begun).Round(time.Millisecond))
		end()
		var m *marathon.Marathon
		for try := 1; ; try++ {
			slow := slowness(t)
			var took time.Duration
			m, _, took, end = marathonOn(t, open(), master.Address())
			slow = max(slow, slowness(t))
			t.Logf("ready with them after %v, where a computation takes %.1f times as long as by itself", took.Round(time.Millisecond), slow)
			limit := time.Duration(slow * float64(loading))
			if took <= limit {
				break
			}
			if try == 3 {
				t.Errorf("it took %v, the limit is %v", took, limit)
				break
			}
			end()
		}
		defer end()
		if err := m.Read(func(v scheduler.View, _ time.Time) {
			if n := v.Root().Len(); n != manyApps {
				t.Errorf("%d apps are loaded", n)
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// What is too large is refused as a whole, before anything of it is written, and what fits is stored as a whole.
func TestLargeGroupsAreRefusedOrStoredWhole(t *testing.T) {
	onStores(t, func(t *testing.T, open func() store.Store) {
		master := mastertest.NewServer(t, mastertest.New(nil))
		documents := open()
		_, at, _, end := marathonOn(t, documents, master.Address())
		defer end()
		if status, body := ask(t, "PUT", at+"/v2/groups/small", group("/small", 2, 10)); status != 201 && status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		list := func() []store.Document {
			t.Helper()
			all, err := documents.List(t.Context(), "marathon/")
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		deployed := func() []store.Document { // the deployment that was begun is over, and the framework has its id
			deadline := time.Now().Add(time.Minute)
			for time.Now().Before(deadline) {
				all := list()
				busy, named := false, false
				for _, d := range all {
					busy = busy || strings.HasPrefix(d.Key, "marathon/deployments/")
					named = named || d.Key == "marathon/framework"
				}
				if named && !busy {
					return all
				}
			}
			t.Fatal("the deployment does not end")
			return nil
		}
		before := deployed()
		for name, tc := range map[string]struct {
			body   string
			status int
			said   string
		}{
			"one app of 5 MB":           {group("/large", 1, 5<<20), 422, "app /large/a0 is too large to be stored: "},
			"a hundred, one of 1 MB":    {strings.TrimSuffix(group("/large", 99, 1000), "]}") + `,{"id":"b","cmd":"x","labels":{"l":"` + strings.Repeat("x", 1<<20) + `"}}]}`, 422, "app /large/b is too large"},
			"twelve million characters": {group("/large", 12, 1<<20), 413, ""},
		} {
			status, body := ask(t, "PUT", at+"/v2/groups/large", tc.body)
			if status != tc.status || !strings.Contains(body, tc.said) {
				t.Errorf("%s: %d %.300s", name, status, body)
			}
			if d := cmp.Diff(before, deployed(), cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); d != "" {
				t.Errorf("%s: something was written:\n%.1000s", name, d)
			}
		}
		if status, body := ask(t, "PUT", at+"/v2/groups/large", group("/large", 100, 50<<10)); status != 200 && status != 201 {
			t.Errorf("5 MB in a hundred apps: %d %.300s", status, body)
		}
		if n := len(list()) - len(before); n < 100 {
			t.Errorf("of a hundred apps %d documents were written", n)
		}
	})
}
