package hosts

import (
	"testing"
	"time"
)

// Agents that were told nothing but the key find each other, and the bars of coming and going hold.
func TestFlockComesAndGoes(t *testing.T) {
	t.Parallel()
	f := NewFlock(t, 5)
	within(t, "found each other by mDNS", Agree(t, time.Minute, f.Agents...), 20*time.Second)

	last := f.Agents[4]
	others := without(f.Agents, last)
	last.Terminate()
	within(t, "a goodbye reached all", See(t, 6*time.Second, others, last, "left"), 2*time.Second)

	last.Restart("--no-discover")
	within(t, "came back by the peers that it remembered", Agree(t, 45*time.Second, f.Agents...), 15*time.Second)

	last.Kill()
	within(t, "a killed agent was dead to all", See(t, 45*time.Second, others, last, "dead"), 15*time.Second)

	last.Restart("--no-discover")
	within(t, "came back after a crash", Agree(t, 45*time.Second, f.Agents...), 15*time.Second)
}

// On a wire without IPv4 everything is as with it.
func TestFlockOnIPv6(t *testing.T) {
	t.Parallel()
	w := NewNetwork6(t, 3)
	agents := w.start(w.Hosts)
	within(t, "found each other by mDNS", Agree(t, time.Minute, agents...), 20*time.Second)
	agents[2].Kill()
	within(t, "a killed agent was dead to all", See(t, 45*time.Second, agents[:2], agents[2], "dead"), 15*time.Second)
	agents[2].Restart("--no-discover")
	within(t, "came back by the peers that it remembered", Agree(t, 45*time.Second, agents...), 15*time.Second)
}
