package hosts

import (
	"testing"
	"time"
)

// Agents that were told nothing but the key find each other, and the bars of coming and going hold.
func TestFlockComesAndGoes(t *testing.T) {
	t.Parallel()
	f := NewFlock(t, 5)
	t.Logf("found each other by mDNS in %v", Agree(t, 20*time.Second, f.Agents...))

	last := f.Agents[4]
	others := without(f.Agents, last)
	last.Terminate()
	t.Logf("a goodbye reached all in %v", See(t, 2*time.Second, others, last, "left"))

	last.Restart("--no-discover")
	t.Logf("came back by the peers that it remembered in %v", Agree(t, 15*time.Second, f.Agents...))

	last.Kill()
	t.Logf("a killed agent was dead to all in %v", See(t, 15*time.Second, others, last, "dead"))

	last.Restart("--no-discover")
	t.Logf("came back after a crash in %v", Agree(t, 15*time.Second, f.Agents...))
}

// On a wire without IPv4 everything is as with it.
func TestFlockOnIPv6(t *testing.T) {
	t.Parallel()
	w := NewNetwork6(t, 3)
	agents := w.start(w.Hosts)
	t.Logf("found each other by mDNS in %v", Agree(t, 20*time.Second, agents...))
	agents[2].Kill()
	See(t, 15*time.Second, agents[:2], agents[2], "dead")
	agents[2].Restart("--no-discover")
	t.Logf("came back by the peers that it remembered in %v", Agree(t, 15*time.Second, agents...))
}
