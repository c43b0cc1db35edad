package node

import (
	"testing"
	"time"

	"starling/cmd/internal/flags"
)

// Status pages show what is set, and keep passwords to themselves.
func TestShownFlags(t *testing.T) {
	s := flags.New("x", "X_")
	patience := flags.Duration(90 * time.Second)
	s.Var(&patience, "offer-timeout", "a duration")
	s.String("zk", "", "an address")
	s.String("roles", "", "nothing")
	if err := s.Parse([]string{"--zk=zk://user:p@ss@h1:2181,h2:2181/mesos"}, nil); err != nil {
		t.Fatal(err)
	}
	got := shownFlags(s)
	if got["offer_timeout"] != "90secs" || got["zk"] != "zk://h1:2181,h2:2181/mesos" {
		t.Errorf("got %v", got)
	}
	if _, there := got["roles"]; there {
		t.Errorf("a flag without a value is shown: %v", got)
	}
}
