package gossip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

// ErrUnknownNode is wrapped by the error for a node of which this one holds no record.
var ErrUnknownNode = errors.New("no such node in the mesh")

// RTT estimates the round trip between two nodes from the coordinates in their records. The error wraps ErrUnknownNode, or
// catalog.ErrNoCoordinate where a node has not said where it is.
func (m *Mesh) RTT(a, b string) (time.Duration, error) {
	from, to := m.records.Snapshot(a), m.records.Snapshot(b)
	for _, n := range []struct {
		name string
		s    *record.Snapshot
	}{{a, from}, {b, to}} {
		if n.s == nil {
			return 0, fmt.Errorf("cannot tell the distance of %q: %w", n.name, ErrUnknownNode)
		}
	}
	rtt, err := catalog.RTT(from, to)
	if err != nil {
		return 0, fmt.Errorf("cannot tell the distance from %q to %q: %w", a, b, err)
	}
	return rtt, nil
}

// What goes along with the answer to a probe: a version byte and a catalog.Coordinate. Nothing at all is in order: that node does not
// take part.
//
// History:
//
//	1  2026-11  first version
const coordinateVersion = 1

// maxCoordinate bounds it. Ours take about 40 bytes.
const maxCoordinate = 128

var errCoordinate = errors.New("malformed coordinate")

func appendCoordinate(dst []byte, c *catalog.Coordinate) []byte {
	dst, err := proto.MarshalOptions{}.MarshalAppend(append(dst, coordinateVersion), c)
	if err != nil {
		return nil // cannot be: plain numbers only
	}
	return dst
}

func parseCoordinate(b []byte) (*catalog.Coordinate, error) {
	switch {
	case len(b) == 0 || len(b) > maxCoordinate:
		return nil, fmt.Errorf("%w: %d bytes", errCoordinate, len(b))
	case b[0] != coordinateVersion:
		return nil, fmt.Errorf("%w: version %d, this software knows %d", errCoordinate, b[0], coordinateVersion)
	}
	c := &catalog.Coordinate{}
	if err := proto.Unmarshal(b[1:], c); err != nil {
		return nil, fmt.Errorf("%w: %w", errCoordinate, err)
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errCoordinate, err)
	}
	return c, nil
}

// microseconds rounds what serf counts in seconds, within the bounds that Check allows.
func microseconds(seconds float64) int32 {
	const most = float64(catalog.MaxDistance / time.Microsecond)
	return int32(math.Round(max(-most, min(most, seconds*1e6))))
}

func toCatalog(c *coordinate.Coordinate) *catalog.Coordinate {
	out := &catalog.Coordinate{
		Height:     uint32(microseconds(c.Height)),
		Adjustment: microseconds(c.Adjustment),
		Error:      uint32(math.Round(max(0, min(catalog.MaxError, c.Error*1000)))),
	}
	for _, v := range c.Vec {
		out.Vector = append(out.Vector, microseconds(v))
	}
	return out
}

func toSerf(c *catalog.Coordinate) *coordinate.Coordinate {
	out := &coordinate.Coordinate{Height: float64(c.Height) / 1e6, Adjustment: float64(c.Adjustment) / 1e6, Error: float64(c.Error) / 1000}
	for _, v := range c.Vector {
		out.Vec = append(out.Vec, float64(v)/1e6)
	}
	return out
}

// locator works out where this node is, from how long the answers to its probes take and where those who answer say they are. Its methods
// may be called from any goroutine; they compute and do not wait.
//
// It begins at the origin at every start, knowing nothing: the space drifts as nodes come and go, and the machine may have been moved, so a place
// that was remembered would be wrong with confidence. A few probes are enough for a better one. Probes alone feed it: twice as many pings
// were tried, and bring the error after a minute from 5 to 4 ms only.
type locator struct {
	mu      sync.Mutex
	client  *coordinate.Client
	payload []byte        // the newest coordinate; replaced, never modified
	typical time.Duration // round trip, a moving average
	samples int
	wrong   int // answers in a row that took much more or less than expected
	// told is what is in the own record, nil before; since then, there were some answers, and by it and by the newest coordinate they were expected
	// otherwise by so much, on average.
	told                  *catalog.Coordinate
	answers               int
	toldError, knownError time.Duration
}

func newLocator() (*locator, error) {
	origin := coordinate.NewCoordinate(coordinate.DefaultConfig())
	client, err := newClient(origin)
	if err != nil {
		return nil, err
	}
	return &locator{client: client, payload: appendCoordinate(nil, toCatalog(origin))}, nil
}

func newClient(at *coordinate.Coordinate) (*coordinate.Client, error) {
	client, err := coordinate.NewClient(coordinate.DefaultConfig())
	if err == nil {
		err = client.SetCoordinate(at)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a network coordinate: %w", err)
	}
	return client, nil
}

// answer is what this node adds to its answers.
func (l *locator) answer() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.payload
}

// observe learns from the answer of a node.
func (l *locator) observe(node string, rtt time.Duration, payload []byte) error {
	if rtt < 0 || rtt > catalog.MaxDistance {
		return fmt.Errorf("%w: a round trip of %v", errCoordinate, rtt)
	}
	theirs, err := parseCoordinate(payload)
	if err != nil {
		return err
	}
	claimed := toSerf(theirs)
	if len(claimed.Vec) != dimensions {
		return fmt.Errorf("%w: %d dimensions, not %d", errCoordinate, len(claimed.Vec), dimensions)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Each answer moves this node by a part of the difference. Who claims to be far beyond all that was ever measured lies, or has moved so far
	// that it is for him to find out: he is not followed.
	d := l.client.DistanceTo(claimed)
	if l.samples >= fewAnswers && d > rtt+strangeBy+strangeTimes*l.typical {
		return fmt.Errorf("%w: %v away by its own word, %v by the clock", errCoordinate, d, rtt)
	}
	mine, err := l.client.Update(node, claimed, rtt)
	if err != nil {
		return fmt.Errorf("%w: %w", errCoordinate, err)
	}
	if l.wrong++; (d - rtt).Abs() < max(rtt/4, movedBy) {
		l.wrong = 0
	}
	if l.wrong == movedTimes {
		// Where everybody is elsewhere, this node has moved. It goes on from here, but knows nothing, and none of the old round trips counts.
		l.wrong, mine.Error = 0, catalog.MaxError/1000.
		if l.client, err = newClient(mine); err != nil {
			return err
		}
	}
	l.payload = appendCoordinate(nil, toCatalog(mine))
	l.samples++
	average(&l.typical, rtt, l.samples)
	if l.told != nil {
		l.answers++
		average(&l.toldError, (l.told.RTT(theirs) - rtt).Abs(), l.answers)
		average(&l.knownError, (d - rtt).Abs(), l.answers)
	}
	return nil
}

// average makes a value the n-th one of a moving average.
func average(a *time.Duration, v time.Duration, n int) { *a += (v - *a) / time.Duration(min(n, 16)) }

// forget drops what is kept about a node.
func (l *locator) forget(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client.ForgetNode(node)
}

// news returns the newest coordinate where others should be told: there is none yet in the own record, or what it foretells has become
// worse than what is known here, by more than matters. To have moved is not enough: the whole space drifts and turns, and distances stay.
func (l *locator) news() (c *catalog.Coordinate, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok = l.samples >= fewAnswers && (l.told == nil || l.answers >= fewAnswers && l.toldError-l.knownError > max(leastGain, l.typical/20))
	return toCatalog(l.client.GetCoordinate()), ok
}

// tell notes what others were told.
func (l *locator) tell(c *catalog.Coordinate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told, l.answers, l.toldError, l.knownError = c, 0, 0, 0
}

const (
	dimensions = 8 // serf's default
	// How much further than the clock says a node may claim to be: this, and so many usual round trips.
	strangeBy    = 50 * time.Millisecond
	strangeTimes = 8
	// A node takes itself for moved after so many answers in a row that were off by a quarter, and by this much.
	movedTimes = 5
	movedBy    = 5 * time.Millisecond
	// fewAnswers are the least that a coordinate is judged by.
	fewAnswers = 8
	// A coordinate is told again when that makes estimates better by a twentieth of a usual round trip, and by this much.
	leastGain = 500 * time.Microsecond
	// locateEvery is how often it is looked at.
	locateEvery = 2 * time.Second
	// A change costs every node some hundred bytes. So the whole mesh tells at most one each tellEvery on average, and each node
	// at most one each tellLeast. For a while after its start a node may do so more often: at first a tenth of that pause, then twice as long each time.
	tellEvery = time.Second
	tellLeast = 10 * time.Second
	// firstSpread spreads the first coordinates of nodes that start together.
	firstSpread = 200 * time.Millisecond
)

// locate keeps the coordinate in the own record.
func (m *Mesh) locate(ctx context.Context) {
	var next time.Time
	pause := time.Duration(0)
	for spread := false; sleep(ctx, locateEvery); {
		now := time.Now()
		c, news := m.locator.news()
		if !news || now.Before(next) {
			continue
		}
		if !spread {
			spread = true
			if wait := m.missing() * firstSpread; wait > locateEvery {
				next = now.Add(rand.N(wait))
				continue
			}
		}
		value, err := proto.Marshal(c)
		if err != nil {
			m.log.Error("coordinate not told", "err", err)
			return
		}
		m.Set(record.Assignment{Key: catalog.KeyCoordinate, Value: value})
		m.locator.tell(c)
		pause = nextPause(pause, m.peers.countAlive()+1)
		next = now.Add(jitter(pause))
	}
}

// nextPause returns for how long at least a node keeps its coordinate to itself after it has told one, given the pause before.
func nextPause(last time.Duration, nodes int) time.Duration {
	all := time.Duration(nodes) * tellEvery
	return min(max(2*last, tellLeast, all/10), max(tellLeast, all))
}

// missing returns how many live nodes have not told their coordinate yet.
func (m *Mesh) missing() time.Duration {
	n := time.Duration(0)
	for s := range m.records.Snapshots() {
		if _, ok := s.Get(catalog.KeyCoordinate); !ok && s.Liveness() == record.Alive {
			n++
		}
	}
	return n
}
