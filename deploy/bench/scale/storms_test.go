package scale_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
)

// load is what a second process does to a master, so that the processor's time of this one is the master's alone.
type load struct {
	Addr string
	// Decline has a framework refuse offers one by one, so many a second; Readers reads /state so often at once.
	Decline, Readers int
	Span             time.Duration
}

// loaded is what it tells.
type loaded struct {
	Calls  int
	Offers int64
	Reads  spread
}

const loadEnv = "STARLING_SCALE_LOAD"

// TestLoad is the second process.
func TestLoad(t *testing.T) {
	var l load
	if err := json.Unmarshal([]byte(os.Getenv(loadEnv)), &l); err != nil {
		t.Skip("only another test starts this one")
	}
	var out loaded
	if l.Decline > 0 {
		l.decline(t, &out)
	}
	if l.Readers > 0 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range l.Readers {
			wg.Go(func() {
				took, _, err := readState(l.Addr)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				out.Reads = append(out.Reads, took)
			})
		}
		wg.Wait()
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nloaded %s\n", text)
}

// start runs the second process, and returns what waits for its end, on any goroutine.
func (l load) start(t testing.TB) func() (loaded, error) {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestLoad$")
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	var b strings.Builder
	cmd.Stdout = &b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (out loaded, err error) {
		if err = cmd.Wait(); err == nil {
			_, text, _ := strings.Cut(b.String(), "\nloaded ")
			err = json.NewDecoder(strings.NewReader(text)).Decode(&out)
		}
		if err != nil {
			err = fmt.Errorf("second process: %w: %s", err, b.String())
		}
		return out, err
	}
}

// readState reads /state as it comes, packed.
func readState(addr string) (time.Duration, int64, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/state", nil)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	begun := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("/state answers %d", resp.StatusCode)
	}
	return time.Since(begun), n, err
}

// decline refuses every offer by a call of its own, without a filter, and repeats old refusals where offers don't suffice.
func (l load) decline(t *testing.T, out *loaded) {
	ids := make(chan *mesos.Offer, 1<<20)
	fw := subscribeAll(t, l.Addr, wish{name: "greedy", take: func(_ *framework, offers []*mesos.Offer) {
		for _, o := range offers {
			select {
			case ids <- o:
			default:
			}
		}
	}})[0]
	const conns = 4
	var wg sync.WaitGroup
	var calls atomic.Int64
	end := time.Now().Add(l.Span)
	for range conns {
		conn, err := net.Dial("tcp", l.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		wg.Go(func() { // answers
			r := bufio.NewReader(conn)
			for {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					return
				}
				if resp.StatusCode != http.StatusAccepted {
					t.Errorf("DECLINE answers %d", resp.StatusCode)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				calls.Add(1)
			}
		})
		wg.Go(func() {
			defer conn.Close()
			old := &mesos.Offer{Id: &mesos.OfferID{Value: proto.String("none")}}
			const batch = 10
			tick := time.NewTicker(time.Second * conns * batch / time.Duration(l.Decline))
			defer tick.Stop()
			for time.Now().Before(end) {
				<-tick.C
				var b []byte
				for range batch {
					select {
					case old = <-ids:
					default:
					}
					call := decline([]*mesos.Offer{old}, 0)
					call.FrameworkId = &mesos.FrameworkID{Value: proto.String(fw.id)}
					body, err := codec.JSON.Marshal(call)
					if err != nil {
						t.Error(err)
						return
					}
					b = fmt.Appendf(b, "POST /api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nMesos-Stream-Id: %s\r\nContent-Length: %d\r\n\r\n%s",
						fw.stream.ID(), len(body), body)
				}
				if _, err := conn.Write(b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	out.Calls, out.Offers = int(calls.Load()), fw.offered.Load()
	fw.close()
}

// spent is the processor time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// decliner measures a framework that declines as fast as it can.
func (s *scale) decliner() {
	rate, span := 10_000, 10*time.Second
	if s.small {
		rate, span = 1000, time.Second
	}
	fw := s.fws[0]
	arrived := make(chan time.Time, 1)
	fw.take(func(offers []*mesos.Offer) {
		at := time.Now()
		if err := fw.call(decline(offers, never)); err != nil { // now: where a REVIVE overtook it, nothing would be offered any more
			s.t.Error(err)
		}
		select {
		case arrived <- at:
		default:
		}
	})
	before, begun := spent(), time.Now()
	wait := load{Addr: s.site.addr, Decline: rate, Span: span}.start(s.t)
	var waited spread
	for time.Since(begun) < span {
		asked := time.Now()
		s.must(fw.call(fw.revive()))
		waited = append(waited, (<-arrived).Sub(asked))
		time.Sleep(100 * time.Millisecond)
	}
	out, err := wait()
	s.must(err)
	took, cpu := time.Since(begun), spent()-before
	s.must(fw.call(fw.suppress()))
	s.row("one framework declines offers singly", fmt.Sprintf("%.0f declines/s, %.0f offers/s, master %.2f cores", float64(out.Calls)/took.Seconds(),
		float64(out.Offers)/took.Seconds(), cpu.Seconds()/took.Seconds()), "10,000/s, at most 1 core")
	s.row("another framework's REVIVE until its offers beside it", waited.String(), "2 s")
	s.unoffered()
}

// unoffered waits until no offer is out, as nobody wants any: none was lost.
func (s *scale) unoffered() {
	s.t.Helper()
	for _, fw := range s.fws {
		fw.calls <- fw.suppress()
	}
	eventually(s.t, "no offer is out", func() bool { return s.site.metric("master/outstanding_offers") == 0 })
}

// crowd measures many readers at once.
func (s *scale) crowd() {
	readers := 1000
	if s.small {
		readers = 20
	}
	w := s.writer()
	alone, _ := w.rounds(100)
	hits := s.site.metric("master/http_cache_hits")
	var out loaded
	var failed error
	done := make(chan struct{})
	wait := load{Addr: s.site.addr, Readers: readers}.start(s.t)
	go func() {
		defer close(done)
		out, failed = wait()
	}()
	var beside spread
	for {
		a, _ := w.round()
		beside = append(beside, a)
		select {
		case <-done:
			s.must(failed)
			w.close()
			s.row(fmt.Sprintf("/state read %d times at once", readers), fmt.Sprintf("%v, %.0f encodings", out.Reads,
				float64(readers)-(s.site.metric("master/http_cache_hits")-hits)), "one encoding a version")
			s.row("ACCEPT until 202 beside them, and before", fmt.Sprintf("%v; %v", beside, alone), "p99 at most twice as long")
			return
		default:
		}
	}
}

// herd has many streams and agents come back at once.
func (s *scale) herd() {
	streams, away := 200, 100
	if s.small {
		streams, away = 20, 10
	}
	var wishes []wish
	for _, fw := range s.fws {
		wishes = append(wishes, wish{name: fw.name, id: fw.id})
		fw.close()
	}
	for n := len(wishes); n < streams; n++ {
		wishes = append(wishes, wish{name: fmt.Sprint("more-", n)})
	}
	for _, a := range s.fleet.agents[:away] {
		s.fleet.mesh.SetLiveness(time.Now(), a.id, record.Dead)
	}
	eventually(s.t, "agents are given up", func() bool { return s.site.metric("master/slaves_unreachable") == float64(away) })
	before := s.heap()
	s.fleet.describes.Store(0)
	stop := make(chan struct{})
	var health spread
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			begun := time.Now()
			resp, err := http.Get("http://" + s.site.addr + "/health")
			if err != nil {
				s.t.Error(err)
				return
			}
			_ = resp.Body.Close()
			health = append(health, time.Since(begun))
		}
	})
	begun := time.Now()
	for _, a := range s.fleet.agents[:away] {
		s.fleet.mesh.SetLiveness(time.Now(), a.id, record.Alive)
	}
	s.fws = subscribeAll(s.t, s.site.addr, wishes...)
	eventually(s.t, "agents are back", func() bool {
		return s.fleet.describes.Load() >= int64(away) && s.site.metric("master/slaves_unreachable") == 0
	})
	took := time.Since(begun)
	close(stop)
	wg.Wait()
	s.row(fmt.Sprintf("%d streams and %d agents return at once", streams, away), ms(took), "15 s")
	s.row("/health meanwhile", health.String(), "p99 200 ms")
	if !s.small {
		s.row("live memory before and after", fmt.Sprintf("%s, %s", mib(before), mib(s.heap())), "at most twice")
	}
	eventually(s.t, "all updates are acknowledged", s.fleet.settled)
}

// mutes has many frameworks subscribe that never read, while agents come and go; it takes half a minute.
func (s *scale) mutes() {
	if s.small {
		return
	}
	const mutes = 200
	connected := s.site.metric("master/frameworks_connected")
	w := s.writer()
	defer w.close()
	alone, _ := w.rounds(100)
	// The half of the agents that comes and goes is offered to the mute ones, who have the least. The writer lives on what it
	// holds of the other half.
	restless := make(map[string]bool)
	for _, a := range s.fleet.agents[:len(s.fleet.agents)/2] {
		restless[a.id] = true
	}
	w.hold(func(o *mesos.Offer) bool { return !restless[o.GetAgentId().GetValue()] })
	before := s.heap()
	for n := range mutes {
		name := fmt.Sprint("mute-", n)
		body, err := codec.JSON.Marshal(&scheduler.Call{
			Type: scheduler.Call_SUBSCRIBE.Enum(),
			Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: &mesos.FrameworkInfo{
				User: proto.String("svc"), Name: proto.String(name), Role: proto.String(name),
			}},
		})
		s.must(err)
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		}}
		conn, err := dialer.DialContext(context.Background(), "tcp", s.site.addr)
		s.must(err)
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "POST /api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		s.must(err)
	}
	eventually(s.t, "mute frameworks are subscribed", func() bool { return s.site.metric("master/frameworks_connected") >= connected+mutes+1 })
	begun := time.Now()
	var most uint64
	var beside spread
	for round := 0; s.site.metric("master/frameworks_connected") > connected+1; round++ {
		if time.Since(begun) > patience {
			s.t.Fatalf("%v streams that nobody reads are not cut within %v", s.site.metric("master/frameworks_connected")-connected-1, patience)
		}
		for _, a := range s.fleet.agents[:len(restless)] {
			s.fleet.mesh.SetLiveness(time.Now(), a.id, []record.Liveness{record.Suspect, record.Alive}[round%2])
		}
		if round%2 == 1 {
			a, _ := w.round()
			beside = append(beside, a)
		}
		if round%64 == 1 {
			most = max(most, s.heap())
		}
	}
	s.row(fmt.Sprintf("%d streams that nobody reads are cut", mutes), fmt.Sprintf("%s, %.2f MiB each at most", ms(time.Since(begun)),
		(float64(most)-float64(before))/mutes/(1<<20)), "30 s or 1,024 events, 8 MiB each")
	s.row("ACCEPT until 202 while half of all agents come and go beside them, and before", fmt.Sprintf("%v; %v", beside, alone), "unaffected")
	for _, a := range s.fleet.agents {
		s.fleet.mesh.SetLiveness(time.Now(), a.id, record.Alive)
	}
}
