package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/api"
	"starling/marathon/mastertest"
	"starling/master/election"
	"starling/master/election/electiontest"
	"starling/master/mesos/server"
)

// instance is one of several Marathons on HTTP, over one store.
type instance struct {
	*rig
	address   string
	contender *electiontest.FakeContender
	backups   string
}

// newInstances starts Marathons of which the first leads.
func newInstances(t *testing.T, n int, proxy api.Proxy) []*instance {
	t.Helper()
	if proxy.ReadTimeout == 0 {
		proxy.ReadTimeout = patience
	}
	shared := &rig{t: t, cluster: mastertest.New(nil), store: mastertest.NewStore()}
	shared.cluster.Add(mastertest.Agent{
		ID: "a1", Host: "127.0.0.1", CPUs: 20, Mem: 1 << 16, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999,
	})
	master := mastertest.NewServer(t, shared.cluster)
	var fake electiontest.Fake
	var all []*instance
	backups := t.TempDir()
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
		own := *shared
		one := &instance{rig: &own, backups: backups, address: ln.Addr().String(), contender: fake.Contender()}
		c := marathon.DefaultConfig()
		c.Masters, c.Hostname, c.Address, c.User = []string{master.Address()}, "127.0.0.1", one.address, "nobody"
		c.Store, c.Log, c.ZK = shared.store, log, "zk://somewhere/marathon"
		c.MinBackoff, c.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
		c.Backups = backups
		_, port, _ := net.SplitHostPort(one.address)
		number, _ := strconv.Atoi(port)
		c.Contender, c.Election = one.contender, one.contender
		c.Candidate = election.Candidate{ID: fmt.Sprint(i), Hostname: "127.0.0.1", Address: "127.0.0.1", Port: number}
		m, err := marathon.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 2)
		go func() { ended <- m.Run(ctx) }()
		go func() { ended <- server.Serve(ctx, api.New(api.Config{Marathon: m, Log: log, Proxy: proxy}), ln) }()
		t.Cleanup(func() {
			cancel()
			for range 2 {
				if err := <-ended; err != nil {
					t.Errorf("ended with %v", err)
				}
			}
		})
		one.url = "http://" + one.address
		one.eventually("healthy", func() bool { return one.do("GET", "/health", "").status == 200 })
		one.eventually("it stands", one.contender.Stands) // before the next does
		all = append(all, one)
	}
	return all
}

func TestFollowersPassRequestsOn(t *testing.T) {
	all := newInstances(t, 2, api.Proxy{})
	leader, follower := all[0], all[1]
	a := follower.want(201, "POST", "//v2/apps/?force=true", `{"id":"/a/b","cmd":"sleep 100","cpus":0.1}`)
	for name, want := range map[string]string{
		"X-Marathon-Leader": leader.url, "X-Marathon-Via": "1.1 " + follower.address, "Location": "/a/b",
		"Content-Type": "application/json", "Cache-Control": "no-cache, no-store, must-revalidate",
	} {
		if got := a.header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	follower.settled()
	want := leader.want(200, "GET", "/v2/apps/a%2Fb?embed=app.tasks", "").body
	if got := follower.want(200, "GET", "/v2/apps/a%2Fb?embed=app.tasks", "").body; got != want {
		t.Errorf("the follower answers %s, the leader %s", got, want)
	}
	if a := follower.want(200, "HEAD", "/v2/apps", ""); a.body != "" {
		t.Errorf("HEAD has a body: %s", a.body)
	}
	follower.want(409, "POST", "/v2/apps", `{"id":"/a/b","cmd":"x"}`)
	follower.want(404, "GET", "/v2/apps/none", "")
	follower.want(400, "POST", "/v2/apps", `{`)
	if a := follower.want(302, "GET", "/", ""); a.header.Get("Location") != "/ui/" {
		t.Errorf("the root leads to %s", a.header.Get("Location"))
	}

	// Large ones, there and back, packed and not.
	labels := strings.Repeat(`"k":"v",`, 100_000)
	large := `{"id":"/large","cmd":"` + strings.Repeat("x", 700_000) + `","cpus":0.1,"instances":0,"labels":{` + strings.TrimSuffix(labels, ",") + `}}`
	follower.want(201, "POST", "/v2/apps", large)
	plain := follower.want(200, "GET", "/v2/apps/large", "")
	if len(plain.body) < 700_000 || plain.body != leader.want(200, "GET", "/v2/apps/large", "").body {
		t.Errorf("the large app has %d bytes", len(plain.body))
	}
	if packed := follower.want(200, "GET", "/v2/apps/large", "", "Accept-Encoding", "gzip"); packed.header.Get("Content-Encoding") != "gzip" ||
		len(packed.body) > 100_000 {
		t.Errorf("packed, it has %d bytes, and is %q", len(packed.body), packed.header.Get("Content-Encoding"))
	}

	// What every instance answers itself.
	for _, path := range []string{"/ping", "/metrics", "/metrics/prometheus", "/health"} {
		a := follower.want(200, "GET", path, "")
		if a.header.Get("X-Marathon-Via") != "" || a.header.Get("X-Marathon-Leader") != leader.url {
			t.Errorf("%s: headers %v", path, a.header)
		}
	}
	for _, one := range all {
		if a := one.want(200, "GET", "/v2/leader", ""); a.body != `{"leader":"`+leader.address+`"}` || a.header.Get("X-Marathon-Via") != "" {
			t.Errorf("leader: %s %v", a.body, a.header)
		}
		config := one.want(200, "GET", "/v2/info", "").json(t)
		if config["leader"] != leader.address || config["elected"] != true || config["marathon_config"].(map[string]any)["ha"] != true ||
			config["zookeeper_config"].(map[string]any)["zk"] != "zk://somewhere/marathon" {
			t.Errorf("info: %v", config)
		}
	}

	// Events are the leader's.
	if a := follower.want(302, "GET", "/v2/events?event_type=x&event_type=y", "", "Accept", "text/event-stream"); a.header.Get("Location") !=
		leader.url+"/v2/events?event_type=x&event_type=y" {
		t.Errorf("events are at %s", a.header.Get("Location"))
	}
	if a := follower.want(502, "GET", "/v2/apps", "", "X-Marathon-Via", "1.1 other:1, 1.1 "+follower.address); a.body != `{"message":"Detected proxying loop."}` {
		t.Errorf("loop: %s", a.body)
	}
}

func TestFollowersPassEventsOnWhereTheyAreToldTo(t *testing.T) {
	all := newInstances(t, 2, api.Proxy{Events: true})
	conn, err := net.Dial("tcp", all[1].address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET /v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("X-Marathon-Leader") != all[0].url {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	events := bufio.NewReader(res.Body)
	until := func(want string) {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(patience))
		for {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			if strings.TrimSpace(line) == "event: "+want {
				return
			}
		}
	}
	until("event_stream_attached")
	all[0].want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"x","cpus":0.1}`)
	until("deployment_success")
	// With the term the stream ends, and its listener looks for another leader.
	all[0].want(200, "DELETE", "/v2/leader", "")
	_ = conn.SetDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(events); err != nil || len(rest) > 1000 {
		t.Errorf("the stream of the last leader goes on with %d bytes, %v", len(rest), err)
	}
}

func TestLeadersThatCannotBeReached(t *testing.T) {
	for _, n := range []struct {
		about, message string
		status         int
		listen         bool
		wait           time.Duration // on a busy machine even a refusal may take long
	}{
		{"nobody listens there", "Connection to leader refused.", 502, false, patience},
		{"nobody answers there", "Connection to leader timed out.", 504, true, 200 * time.Millisecond},
	} {
		t.Run(n.about, func(t *testing.T) {
			all := newInstances(t, 2, api.Proxy{ConnectTimeout: patience, ReadTimeout: n.wait})
			follower := all[1]
			port := mastertest.NobodyAt(t).Port
			if n.listen {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				port = ln.Addr().(*net.TCPAddr).Port
			}
			follower.instead(t, all[0], port)
			a := follower.want(n.status, "GET", "/v2/apps", "")
			if a.body != `{"message":"`+n.message+`"}` {
				t.Errorf("%s", a.body)
			}
		})
	}
}

// instead has somebody else lead, who is at a port of this machine and no Marathon, until the end of the test.
func (i *instance) instead(t *testing.T, leader *instance, port int) {
	t.Helper()
	other := i.contender.Rival()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- other.Run(ctx, election.Candidate{ID: "other", Hostname: "127.0.0.1", Address: "127.0.0.1", Port: port},
			func(ctx context.Context, _ election.Term) error { <-ctx.Done(); return nil })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	want := fmt.Sprintf(`{"leader":"127.0.0.1:%d"}`, port)
	i.eventually("somebody else leads", func() bool {
		if body := i.do("GET", "/v2/leader", "").body; body == want {
			return true
		}
		leader.contender.Expire()
		i.contender.Expire()
		return false
	})
}

func TestAbdicationThroughAFollower(t *testing.T) {
	all := newInstances(t, 2, api.Proxy{})
	for uri, want := range map[string]int{"s3://bucket/x": 422, "file://": 422} {
		all[1].want(want, "DELETE", "/v2/leader?backup="+uri, "")
	}
	a := all[1].want(200, "DELETE", "/v2/leader?backup=file://"+all[0].backups+"/b.tar", "")
	if a.body != `{"message":"Leadership abdicated","handover":"/v2/handover"}` {
		t.Errorf("%s", a.body)
	}
	for _, one := range all {
		one.eventually("the other one leads", func() bool {
			return one.do("GET", "/v2/leader", "").body == `{"leader":"`+all[1].address+`"}`
		})
	}
	all[0].want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"x","cpus":0.1}`)
}

// Streams that last must not use up the connections of other requests.
func TestStreamsLeaveRoomForOthers(t *testing.T) {
	all := newInstances(t, 2, api.Proxy{Events: true, MaxConns: 2})
	for range 5 {
		conn, err := net.Dial("tcp", all[1].address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(conn, "GET /v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("a stream: %v, %v", res, err)
		}
	}
	all[1].want(200, "GET", "/v2/apps", "")
}

// What a follower passes on: all but what speaks of one connection, and where it has come through.
func TestHeadersThatAreNotPassedOn(t *testing.T) {
	all := newInstances(t, 2, api.Proxy{})
	got := make(chan http.Header, 1)
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		h.Set("Seen-Host", r.Host)
		got <- h
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-Kept", "yes")
		w.WriteHeader(200)
	}))
	defer leader.Close()
	all[1].instead(t, all[0], leader.Listener.Addr().(*net.TCPAddr).Port)
	a := all[1].want(200, "GET", "/v2/apps", "", "Authorization", "Basic bWU6", "Connection", "X-Hop, close", "X-Hop", "1",
		"Proxy-Authorization", "Basic bWU6", "X-Other", "2", "X-Forwarded-For", "10.0.0.1")
	h := <-got
	for name, want := range map[string]string{
		"Authorization": "Basic bWU6", "X-Hop": "", "Proxy-Authorization": "", "X-Other": "2", "X-Forwarded-For": "10.0.0.1, 127.0.0.1",
		"X-Marathon-Via": "1.1 " + all[1].address, "Seen-Host": leader.Listener.Addr().String(),
	} {
		if h.Get(name) != want {
			t.Errorf("%s is %q at the leader, want %q", name, h.Get(name), want)
		}
	}
	if a.header.Get("Proxy-Authenticate") != "" || a.header.Get("X-Kept") != "yes" {
		t.Errorf("the answer has %v", a.header)
	}
}

// An old backup brings no harm: what it does not know is shown, and adopted through any instance.
func TestOrphansThroughTheAPI(t *testing.T) {
	all := newInstances(t, 2, api.Proxy{})
	all[1].want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"x","cpus":0.1}`)
	all[1].settled()
	handOver := func(query string) {
		t.Helper()
		before := all[0].want(200, "GET", "/v2/leader", "").body
		all[0].want(200, "DELETE", "/v2/leader?"+query, "")
		for _, one := range all {
			one.eventually("the other one leads", func() bool {
				a := one.do("GET", "/v2/leader", "")
				return a.status == 200 && a.body != before
			})
		}
	}
	file := "file://" + all[0].backups + "/b.tar"
	if a := all[1].want(200, "GET", "/v2/handover", ""); a.body != `{"last":null}` {
		t.Errorf("before: %s", a.body)
	}
	handOver("backup=" + file)
	all[1].want(200, "PUT", "/v2/apps/a", `{"instances":3}`)
	all[1].settled()
	handOver("restore=" + file)
	last := all[0].want(200, "GET", "/v2/handover", "").json(t)["last"].(map[string]any)
	if last["restore"] != file || last["error"] != nil || last["replaced"] == nil {
		t.Errorf("of the restore is told %v", last)
	}
	var orphans []any
	all[0].eventually("two orphans", func() bool {
		body := all[0].want(200, "GET", "/v2/orphans", "").json(t)
		orphans, _ = body["orphans"].([]any)
		return len(orphans) == 2 && body["restoredAt"] != nil
	})
	one := orphans[0].(map[string]any)
	if one["appId"] != "/a" || one["state"] != "TASK_RUNNING" || one["appDefined"] != true || one["slaveId"] != "a1" {
		t.Errorf("an orphan is %v", one)
	}
	all[0].want(422, "POST", "/v2/orphans/adopt", `{}`)
	all[0].want(400, "POST", "/v2/orphans/adopt", `x`)
	if a := all[0].want(200, "POST", "/v2/orphans/adopt", fmt.Sprintf(`{"ids":[%q,"x"]}`, one["id"])); a.body !=
		fmt.Sprintf(`{"adopted":[%q],"refused":{"x":"the master knows no such task"}}`, one["id"]) {
		t.Errorf("adopted: %s", a.body)
	}
	if a := all[0].want(200, "POST", "/v2/orphans/dismiss", `{"all":true}`); a.body != `{"unknown":[]}` {
		t.Errorf("dismissed: %s", a.body)
	}
	all[0].eventually("one is adopted, and one gone", func() bool { return all[0].running("a") == 2 })
}
