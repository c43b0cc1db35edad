package master_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	"starling/master/election"
	"starling/master/mastertest"
	"starling/master/mesos/scheduler"
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

func (d told) tell(leader *election.Candidate) {
	d <- leader
	synctest.Wait()
}

// claim is what another master says in the mesh of its leading.
type claim struct {
	id  string
	own *record.Map
}

// newClaim puts another master into the mesh that says it leads.
func newClaim(t *testing.T, c *mastertest.Cluster, id string, epoch uint64) *claim {
	t.Helper()
	l := &claim{id: id, own: record.NewMap(id, 1)}
	l.renew(t, c, epoch)
	c.Mesh.SetLiveness(time.Now(), id, record.Alive)
	synctest.Wait()
	return l
}

func (l *claim) renew(t *testing.T, c *mastertest.Cluster, epoch uint64) {
	t.Helper()
	value, err := proto.Marshal(&catalog.Leader{Epoch: epoch, Hostname: l.id, Address: "10.0.0.9", Port: 5050, MasterId: l.id})
	if err != nil {
		t.Fatal(err)
	}
	l.set(t, c, record.Assignment{Key: catalog.KeyLeader, Value: value})
}

func (l *claim) withdraw(t *testing.T, c *mastertest.Cluster) {
	t.Helper()
	l.set(t, c, record.Assignment{Key: catalog.KeyLeader})
}

func (l *claim) set(t *testing.T, c *mastertest.Cluster, a record.Assignment) {
	t.Helper()
	l.own.Set(time.Now(), a)
	if err := c.Mesh.Apply(l.own.Delta(l.id, 0)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestStandbyNamesTheLeaderThatTheElectionNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := make(told)
		c := mastertest.Start(t, nil, func(cfg *master.Config) { cfg.Detector = d })
		want := func(when, id string) {
			t.Helper()
			switch l := c.Master.Standing().Leader; {
			case l == nil && id != "":
				t.Errorf("%s: no leader is known, want %s", when, id)
			case l != nil && l.ID != id:
				t.Errorf("%s: the leader is %q, want %q", when, l.ID, id)
			}
		}
		synctest.Wait()
		want("at first", "")
		if !c.Master.Ready() {
			t.Error("a standby that follows the mesh is not ready")
		}
		claims := newClaim(t, c, "m2", 7)
		want("while only the mesh tells", "m2")
		d.tell(&election.Candidate{ID: "m3", Hostname: "h3", Address: "10.0.0.3", Port: 5053})
		want("although the mesh still has the old one", "m3")
		if l := *c.Master.Standing().Leader; l.Hostname != "h3" || l.Address != "10.0.0.3" || l.Port != 5053 {
			t.Errorf("the leader is at %+v", l)
		}
		d.tell(&election.Candidate{ID: mastertest.MasterID, Hostname: "m1", Address: "10.0.0.1", Port: 5050})
		want("while its own term has not begun", "")
		c.ElectAs(8)
		synctest.Wait()
		want("as the leader", mastertest.MasterID)
		c.Lose()
		synctest.Wait()
		want("after its term", "")
		d.tell(&election.Candidate{ID: "m2", Hostname: "m2", Address: "10.0.0.9", Port: 5050})
		want("after the next won", "m2")
		if l := c.Master.Standing().Leader; l.Epoch != 7 {
			t.Errorf("its epoch is %d, want that of its record", l.Epoch)
		}
		// While ZooKeeper is away the detector says nothing new.
		claims.withdraw(t, c)
		want("after it withdrew its claim in the mesh", "")
		claims.renew(t, c, 9)
		want("after it claims to lead again", "m2")
		claims.withdraw(t, c)
		d.tell(nil)
		d.tell(&election.Candidate{ID: "m2", Hostname: "m2", Address: "10.0.0.9", Port: 5050})
		want("elected again, before its claim", "m2")
		claims.renew(t, c, 10)
		c.Mesh.SetLiveness(time.Now(), "m2", record.Dead)
		synctest.Wait()
		want("after the mesh held it for dead", "")
		c.Mesh.SetLiveness(time.Now(), "m2", record.Alive)
		synctest.Wait()
		want("after it came back", "m2")
		c.Mesh.SetLiveness(time.Now(), "m2", record.Dead)
		d.tell(nil)
		want("with nobody elected, and the last one dead", "")
	})
}

func TestRecoveringMasterIsItsOwnLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := make(told)
		s := mastertest.NewStore()
		s.SetFailure(func() error { return context.DeadlineExceeded })
		c := mastertest.Start(t, s, func(cfg *master.Config) { cfg.Detector = d })
		newClaim(t, c, "m2", 7)
		c.ElectAs(8)
		synctest.Wait()
		d.tell(&election.Candidate{ID: mastertest.MasterID})
		if st := c.Master.Standing(); !st.Recovering || st.Leading || st.Leader == nil || st.Leader.ID != mastertest.MasterID {
			t.Errorf("while documents cannot be read it stands as %+v", st)
		}
		s.SetFailure(nil)
		time.Sleep(time.Minute)
		if st := c.Master.Standing(); !st.Leading {
			t.Errorf("after the documents could be read it stands as %+v", st)
		}
	})
}

// Epochs that were withdrawn from the mesh count too when ZooKeeper has lost the count.
func TestEpochsAreRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		synctest.Wait()
		want := func(floor uint64) {
			t.Helper()
			if got := c.Master.EpochFloor(); got != floor {
				t.Errorf("the floor of epochs is %d, want %d", got, floor)
			}
		}
		want(0)
		other := newClaim(t, c, "m2", 7)
		want(7)
		other.withdraw(t, c)
		want(7)
		other.renew(t, c, math.MaxUint64) // a lie
		want(7)
		c.ElectAs(9)
		synctest.Wait()
		c.Lose()
		synctest.Wait()
		want(9)
	})
}

// A master that wins and loses again and again leaves nothing behind, whatever frameworks and agents do meanwhile.
func TestTermsLeaveNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		c.AddAgent(1, "cpus:4;mem:4096")
		info := mastertest.Info("f", []string{"*"})
		info.FailoverTimeout = proto.Float64(3600)
		const terms = 10
		var first, last int
		for n := range terms {
			c.Elect()
			synctest.Wait()
			f := mastertest.Subscribe(t, c.Master, info)
			info = f.Again()
			for launched := false; !launched; {
				event, err := f.Next(mastertest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				f.Acknowledge(event.GetUpdate().GetStatus()) // of the task of the term before
				if offers := event.GetOffers().GetOffers(); len(offers) > 0 {
					f.Launch(offers[0], 0, mastertest.Task(fmt.Sprint("t", n), "cpus:0.1;mem:32"))
					launched = true
				}
			}
			synctest.Wait()
			c.Lose()
			synctest.Wait()
			f.Stream.Close()
			time.Sleep(time.Second)
			synctest.Wait()
			if st := c.Master.Standing(); st.Leading || st.Recovering || !st.Led {
				t.Fatalf("after term %d it stands as %+v", n+1, st)
			}
			if last = runtime.NumGoroutine(); n == 0 {
				first = last
			}
		}
		// Those of the whole process are counted, of which one or two come and go; one that a term leaves behind is there as often
		// as there were terms.
		if last-first >= terms/2 {
			t.Errorf("%d goroutines after the first term, %d after %d", first, last, terms)
		}
		v, err := c.Master.View(t.Context())
		if err != nil || len(v.Frameworks) != 1 || v.Frameworks[0].Tasks.Len() < terms || len(v.Frameworks[0].Offers) > 0 {
			t.Errorf("view after all terms: %+v, %v; want the framework with its tasks, and no offer", v, err)
		}
	})
}

// Where the store was lost, nobody knows which ids were given: none of them may be given again.
func TestLostStoreDoesNotLeadToTheSameFrameworkIDs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		c.Elect()
		synctest.Wait()
		first := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"*"}))
		if want := mastertest.MasterID + "-0000"; first.ID != want {
			t.Errorf("the first framework is %q, want %q", first.ID, want)
		}
		c.Stop()
		again := mastertest.Start(t, nil, nil)
		again.ElectAs(2)
		synctest.Wait()
		second := mastertest.Subscribe(t, again.Master, mastertest.Info("g", []string{"*"}))
		if second.ID == first.ID || !strings.HasPrefix(second.ID, mastertest.MasterID+"-") {
			t.Errorf("with another store the first framework is %q, after %q", second.ID, first.ID)
		}
	})
}

// S18a: whoever holds the key of the mesh can claim any epoch in it. The leader leads on, agents obey it, and it is named as ever.
func TestFalseClaimsWhileLeading(t *testing.T) {
	for _, epoch := range []uint64{2, election.MaxHeard, math.MaxUint64} {
		bubble(t, func(t *testing.T) {
			c, a, f := withTask(t, nil, aware)
			liar := newClaim(t, c, "liar", epoch)
			f.Launch(await(t, f, scheduler.Event_OFFERS).GetOffers().GetOffers()[0], 0, mastertest.Task("after", "cpus:1;mem:32"))
			awaitStatus(t, f, "after", running)
			if st := c.Master.Standing(); !st.Leading || st.Leader.ID != mastertest.MasterID || a.Starts(f.ID, "t") != 1 || len(a.Tasks()) != 2 {
				t.Errorf("a claim of epoch %d: it stands as %+v, the agent runs %v", epoch, st, a.Tasks())
			}
			if floor := c.Master.EpochFloor(); floor > election.MaxHeard {
				t.Errorf("the next epoch would be above %d", floor)
			}
			// The claimant goes, and nothing of it stays.
			c.Mesh.SetLiveness(time.Now(), liar.id, record.Dead)
			synctest.Wait()
			checkBooks(t, c.Master)
		})
	}
}
