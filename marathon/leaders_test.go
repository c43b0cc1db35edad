package marathon_test

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"testing"

	"starling/marathon"
	"starling/marathon/mastertest"
	"starling/master/election"
	call "starling/master/mesos/scheduler"
)

// told is a detector that is told what to say.
type told chan *election.Candidate

func (d told) Leader(ctx context.Context, _ *election.Candidate) (*election.Candidate, error) {
	select {
	case leader := <-d:
		return leader, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// candidate is the one that a server stands for.
func candidate(t *testing.T, s *mastertest.Server) *election.Candidate {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Address())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &election.Candidate{ID: s.Address(), Hostname: "not.to.be.resolved.invalid", Address: host, Port: n}
}

// A Marathon with a detector subscribes at the master that it names, and leaves one that does not lead any more even though
// that one keeps the stream open, as a frozen one does.
func TestMarathonFollowsTheDetector(t *testing.T) {
	r := newRig(t)
	second := mastertest.NewServer(t, r.cluster)
	d := make(told)
	r.configure = func(c *marathon.Config) { c.Masters, c.Detector = nil, d }
	r.start()
	d <- nil
	if n := r.cluster.Sessions(); n != 0 {
		t.Errorf("%d sessions while nobody leads, want none", n)
	}
	subscribed := func(n int) func() bool { return func() bool { return r.cluster.Sessions() == n } }
	d <- candidate(t, r.server)
	r.eventually("it is subscribed", subscribed(1))
	r.eventually("it knows as which framework", r.connected)
	id := r.cluster.FrameworkID()
	r.server.Refuse(func(*call.Call) (int, string) { return http.StatusServiceUnavailable, "frozen" })
	d <- nil // as when ZooKeeper is out of reach
	d <- candidate(t, r.server)
	d <- candidate(t, second)
	r.eventually("it is subscribed at the next leader", subscribed(2))
	if got := r.cluster.FrameworkID(); got != id {
		t.Errorf("the framework is %q now, was %q", got, id)
	}
	d <- nil
	if n := r.cluster.Sessions(); n != 2 {
		t.Errorf("%d sessions in all, want 2: that no leader is known ends none", n)
	}
}
