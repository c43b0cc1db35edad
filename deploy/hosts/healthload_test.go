package hosts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"starling/marathon/mastertest"
	"starling/master/mesos/scheduler"
)

// TestFaultsHalfOfHealthChecksTimeOut (W10): Marathon checks 2,000 tasks, and half of the checks time out: of a quarter of the tasks all, of a
// half every second one, of a quarter none. Nothing is killed that did not fail as often in a row as its app allows, checks
// are not late by more than their interval, and one that really falls ill is found. The master and its agents are simulated.
func TestFaultsHalfOfHealthChecksTimeOut(t *testing.T) {
	// An answer that a busy machine brings too late is one more failure in a row.
	tasks, lasts, interval, timeout, most := 200, 16*time.Second, 4*time.Second, 3*time.Second, 3
	if *fullRows {
		tasks, lasts, interval, timeout, most = 2000, 5*time.Minute, 10*time.Second, 5*time.Second, 2
	} else {
		t.Parallel()
	}
	cluster := mastertest.New(nil)
	for n := range tasks { // room for one task each, so that an address is a task
		cluster.Add(mastertest.Agent{
			ID: fmt.Sprintf("a%d", n), Host: fmt.Sprintf("127.78.%d.%d", n/250, 1+n%250), CPUs: 0.1, Mem: 64, Disk: 64,
			FirstPort: 31000, LastPort: 31000,
		})
	}
	master := mastertest.NewServer(t, cluster)
	port := FreePort(t, "127.0.0.1")
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	p := Start(t, url+"/health", "marathon", "marathon", "--work-dir", t.TempDir(), "--http-address", "127.0.0.1",
		fmt.Sprint("--http-port=", port), "--hostname", "127.0.0.1", "--master=http://"+master.Address())
	c := &Cluster{t: t, Marathon: url}
	services := map[string]*service{}
	for name, share := range map[string]struct {
		part, failures int
		answers        func(n int) bool
	}{
		"well":  {tasks / 4, most, func(int) bool { return true }},
		"shaky": {tasks / 2, most, func(n int) bool { return n%2 == 0 }},
		"dead":  {tasks / 4, 0, func(int) bool { return false }}, // never killed for it
	} {
		s := newService(t, share.answers)
		services[name] = s
		body := fmt.Sprintf(`{"id":"/%s","cmd":"x","cpus":0.1,"mem":64,"instances":%d,"healthChecks":[{"protocol":"HTTP","port":%d,"path":"/",
			"intervalSeconds":%d,"timeoutSeconds":%d,"gracePeriodSeconds":0,"maxConsecutiveFailures":%d}]}`,
			name, share.part, s.port, int(interval.Seconds()), int(timeout.Seconds()), share.failures)
		if _, _, err := c.request("POST", c.Marathon+"/v2/apps", body); err != nil {
			t.Fatal(err)
		}
	}
	for name, n := range map[string]int{"well": tasks / 4, "shaky": tasks / 2, "dead": tasks / 4} {
		c.Running("/"+name, n)
	}
	kills := func() int {
		n := 0
		for _, call := range cluster.Calls() {
			if call.GetType() == scheduler.Call_KILL {
				n++
			}
		}
		return n
	}
	for _, s := range services {
		s.begin()
	}
	<-time.After(interval) // what times out does so everywhere
	before, cpu, began := map[string]int{}, p.CPU(), time.Now()
	for name, s := range services {
		before[name] = s.count()
	}
	<-time.After(lasts)
	took, used := time.Since(began), p.CPU()-cpu
	if n := kills(); n != 0 {
		t.Errorf("%d tasks were killed, want none", n)
	}
	for name, n := range map[string]int{"well": tasks / 4, "shaky": tasks / 2, "dead": tasks / 4} {
		done := services[name].count() - before[name]
		due := float64(n) * float64(took) / float64(interval)
		t.Logf("%s: %d checks in %v, %.0f were due", name, done, took.Round(time.Second), due)
		if float64(done) < due/2-float64(n)/4 {
			t.Errorf("%s: %d checks in %v, %.0f were due", name, done, took, due)
		}
	}
	cores := used.Seconds() / took.Seconds()
	t.Logf("%d tasks are checked with %.3f of a core", tasks, cores)
	if *fullRows && cores > 0.5 {
		t.Errorf("%d tasks are checked with %.2f of a core, want half a core at most", tasks, cores)
	}
	services["well"].fail()
	ill := time.Now()
	Eventually(t, 2*time.Minute, "the one that falls ill is killed", func() error {
		if kills() == 0 {
			return errors.New("nothing is")
		}
		return nil
	})
	t.Logf("one that fell ill was killed after %v", time.Since(ill).Round(100*time.Millisecond))
	if n := kills(); n != 1 {
		t.Errorf("%d tasks were killed, want one", n)
	}
}

// service answers health checks at one port of all addresses, each address by a rule of its own, or leaves them without answer.
type service struct {
	port int

	mu    sync.Mutex
	begun bool           // until then it answers all, so that deployments end
	seen  map[string]int // checks by address
	all   int
	first string // the address that is to fail
	ill   bool
}

func newService(t testing.TB, answers func(n int) bool) *service {
	s := &service{seen: map[string]int{}}
	var l net.Listener
	Eventually(t, 10*time.Second, "a port is free at all addresses", func() (err error) {
		s.port = FreePort(t, "0.0.0.0")
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", s.port))
		return err
	})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if s.take(conn, answers) {
					_, _ = bufio.NewReader(conn).ReadString('\n')
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					return
				}
				left := make(chan struct{}) // whoever waits for the answer gives up some time
				go func() { defer close(left); _, _ = io.Copy(io.Discard, conn) }()
				select {
				case <-left:
				case <-stop:
					conn.Close()
					<-left
				}
			})
		}
	})
	t.Cleanup(func() { close(stop); l.Close(); wg.Wait() })
	return s
}

// take counts a check, and tells whether it is answered.
func (s *service) take(conn net.Conn, answers func(n int) bool) bool {
	at, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == "" {
		s.first = at
	}
	s.all++
	if !s.begun {
		return true
	}
	n := s.seen[at]
	s.seen[at]++
	return answers(n) && (!s.ill || at != s.first)
}

// begin ends the time in which it answers all.
func (s *service) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// fail has one task of the service answer no more.
func (s *service) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ill = true
}
