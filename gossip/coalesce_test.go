package gossip

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/memnet"
)

// tap notes when a node sends hot deltas in datagrams.
type tap struct {
	*memnet.Transport
	mu  sync.Mutex
	hot []time.Time
}

func (p *tap) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	// Before it are the label with two bytes, memberlist's checksum with its kind, and the kind that says that the rest is ours.
	const begin = 2 + len("starling") + 5 + 1
	if len(b) > begin+1 && b[begin] == messageVersion && kind(b[begin+1]) == kindHot {
		p.mu.Lock()
		p.hot = append(p.hot, time.Now())
		p.mu.Unlock()
	}
	return p.Transport.WriteToAddress(b, to)
}

func (p *tap) since(t time.Time) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, at := range p.hot {
		if !at.Before(t) {
			return p.hot[i:]
		}
	}
	return nil
}

// The first of a burst of changes goes at once, the rest in one round each 100 ms beside memberlist's each 200 ms; and what is no news
// is not passed on.
func TestABurstIsCoalescedAndNewsArePassedOnOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 0)
		p := &tap{Transport: f.net.Host(memnet.Addr(1))}
		relay := &tap{Transport: f.net.Host(memnet.Addr(2))}
		f.form(10, func(c *Config) {
			switch c.NodeID {
			case "node-001":
				c.Transport = p
			case "node-002":
				c.Transport = relay
			}
		})
		time.Sleep(time.Minute)
		start := time.Now()
		const burst = 2 * time.Second
		for i := range int(burst / (5 * time.Millisecond)) {
			f.nodes[1].Set(assign("task/f/1", fmt.Sprint(i)))
			time.Sleep(5 * time.Millisecond)
		}
		sent := p.since(start)
		if len(sent) == 0 || sent[0].Sub(start) > 0 {
			t.Fatalf("the first of %d datagrams did not go at once", len(sent))
		}
		// 3 each 100 ms, a fifth more or less, and 5 each 200 ms.
		if most := int(burst/(80*time.Millisecond)+1)*3 + int(burst/(200*time.Millisecond)+1)*5; len(sent) > most {
			t.Errorf("%d datagrams for 400 changes in %v, want at most %d", len(sent), burst, most)
		}
		f.within(2*time.Second, "the last change everywhere", everywhere(f.nodes, "node-001", "task/f/1", "399"))
		time.Sleep(5 * time.Second)

		// The same once more is no news to anybody.
		delta := f.nodes[1].records.AgedEntries(time.Now(), nil, "node-001", f.nodes[1].Snapshot("node-001").Generation(), []string{"task/f/1"})
		start = time.Now()
		if err := f.nodes[2].Apply(delta); err != nil {
			t.Fatal(err)
		}
		before, _ := f.nodes[2].queue.state()
		time.Sleep(50 * time.Millisecond)
		if sent := relay.since(start); before != 0 || len(sent) != 0 {
			t.Errorf("what is no news was queued (%d entries) and sent %d times", before, len(sent))
		}
	})
}
