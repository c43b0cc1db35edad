package zktest

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
)

func TestALoneServerIsKilledAndWiped(t *testing.T) {
	e := Start(t, Options{})
	s := e.Servers[0]
	if mode := s.Mode(); mode != "standalone" || e.Leader() != s {
		t.Errorf("want a standalone server that leads, got %q", mode)
	}
	if url := e.URL("/mesos"); url != "zk://"+s.Addr()+"/mesos" {
		t.Errorf("URL is %q", url)
	}
	s.Kill()
	s.Kill()
	if s.Running() || s.Mode() != "" {
		t.Error("the server runs after it was killed")
	}
	if _, err := os.Stat(s.data() + "/version-2"); err != nil {
		t.Errorf("want data of the server: %v", err)
	}
	// As one leaves it that is killed when it begins the next log.
	if err := os.WriteFile(s.data()+"/version-2/log.7fffffff", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.Wait()
	s.Kill()
	s.Wipe()
	if _, err := os.Stat(s.data() + "/version-2"); !os.IsNotExist(err) {
		t.Errorf("want no data of the server, got %v", err)
	}
	s.Start()
	s.Wait()
	if answer, err := s.Ask("ruok"); err != nil || answer != "imok" {
		t.Errorf("want imok, got %q (%v)", answer, err)
	}
	s.Stop()
	if s.Running() {
		t.Error("the server runs after it was stopped")
	}
}

func TestAnEnsembleElectsAnotherLeader(t *testing.T) {
	e := Start(t, Options{Servers: 3})
	if n := strings.Count(e.Hosts(), ","); n != 2 {
		t.Errorf("want 3 hosts, got %q", e.Hosts())
	}
	first := e.AwaitLeader()
	first.Pause()
	e.AwaitLeader(first)
	first.Resume()
	first.Restart()
	if mode := first.Mode(); mode != "follower" {
		t.Errorf("want a follower, got %q", mode)
	}
	e.Kill()
	if e.Leader() != nil {
		t.Error("a dead ensemble has a leader")
	}
	e.Wipe()
	e.Start()
	e.AwaitLeader()
}

func TestASessionIsEndedByThePathOfItsNode(t *testing.T) {
	e := Start(t, Options{})
	ended := make(chan struct{})
	conn, events, err := zk.Connect([]string{e.Servers[0].Addr()}, 5*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		for event := range events {
			if event.State == zk.StateExpired {
				close(ended)
				return
			}
		}
	}()
	if _, err := conn.Create("/node-", nil, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	e.Expire("/node-")
	select {
	case <-ended:
	case <-time.After(Patience):
		t.Error("the client was not told that its session is over")
	}
}
