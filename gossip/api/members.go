package api

import (
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/gossip"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// Member is one node as another one sees it. Text out of records is whatever that node wrote: escape it before it reaches a
// terminal or a page.
type Member struct {
	Name string `json:"name"`
	// State is alive, suspect, dead or left. A node that this one never saw itself, and only has the record of, is suspect
	// while there is news of it and dead a minute later; Seen is false for it.
	State string `json:"state"`
	Seen  bool   `json:"seen"`
	// Self is set for the node that answers.
	Self bool `json:"self"`
	// Address is the host:port at which the node's mesh listens, empty where it is not known.
	Address string `json:"address"`
	// Version is up to which version of its record this node has all of it; Generation is which start of the node wrote it.
	Version    uint64 `json:"version"`
	Generation uint64 `json:"generation"`
	// Age is how many seconds ago the newest change of its record arrived here; where none has, the state changed.
	Age float64 `json:"age"`
	// Since is when the state last changed, by the clock of the node that answers.
	Since time.Time `json:"since,omitzero"`
	// Damped is set for a node that comes and goes and is back: until DampedUntil it is not believed, and counts as dead.
	Damped      bool      `json:"damped"`
	DampedUntil time.Time `json:"damped_until,omitzero"`

	// The rest is what the node says of itself; absent where it says nothing.
	Roles    []string `json:"roles"`
	Hostname string   `json:"hostname,omitempty"`
	// APIAddress is the host:port of its HTTP API.
	APIAddress string `json:"api_address,omitempty"`
	AgentID    string `json:"agent_id,omitempty"`
	Software   string `json:"software_version,omitempty"`
	Region     string `json:"region,omitempty"`
	Zone       string `json:"zone,omitempty"`
	// Free and Total are an agent's resources, of all roles together.
	Free  *Resources `json:"free,omitempty"`
	Total *Resources `json:"total,omitempty"`
	// Tasks counts those that are in the record: not ended, or not acknowledged as ended.
	Tasks    int      `json:"tasks"`
	Draining bool     `json:"draining,omitempty"`
	Problems []string `json:"problems,omitempty"`
	// Leader is there for a master that says it leads.
	Leader *Leader `json:"leader,omitempty"`
}

// Resources are sums over all roles and reservations; unusual ones (revocable, shared, disks of their own) are left out.
type Resources struct {
	CPUs float64 `json:"cpus"`
	GPUs float64 `json:"gpus,omitempty"`
	// Mem and Disk are MiB.
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
	// Ports counts them.
	Ports uint64 `json:"ports"`
}

// Leader is what a leading master says of that.
type Leader struct {
	Epoch uint64 `json:"epoch"`
	// Address is the host:port of its HTTP API.
	Address string `json:"address"`
}

// membersFor is how long an answer is given again: however many ask, the list is made a few times a second.
const membersFor = 200 * time.Millisecond

// cache is the newest answer. Its lock is held while one is made, so that others wait for that instead of making the same.
type cache struct {
	mu   sync.Mutex
	made time.Time
	body []byte // replaced, never modified
}

func (a *api) members(c *fiber.Ctx) error {
	body, err := a.encoded(time.Now())
	if err != nil {
		return err
	}
	return send(c, body)
}

func (a *api) encoded(now time.Time) ([]byte, error) {
	a.cache.mu.Lock()
	defer a.cache.mu.Unlock()
	if a.cache.body != nil && now.Sub(a.cache.made) < membersFor {
		return a.cache.body, nil
	}
	body, err := encode(a.list(now))
	if err == nil {
		a.cache.made, a.cache.body = now, body
	}
	return body, err
}

func (a *api) list(now time.Time) []Member {
	known := a.mesh.Members()
	out := make([]Member, 0, len(known))
	for i := range known {
		if s := a.mesh.Snapshot(known[i].Name); s != nil { // else it was reaped just now
			out = append(out, a.member(now, &known[i], s))
		}
	}
	return out
}

// member joins what the mesh knows of a node with what its record says.
func (a *api) member(now time.Time, known *gossip.Member, s *record.Snapshot) Member {
	news := s.Updated()
	if news.IsZero() {
		news = known.Since
	}
	m := Member{
		Name: known.Name, State: state(now, s), Seen: s.Liveness() != record.Unknown, Self: known.Name == a.mesh.Self(),
		Version: s.Version(), Generation: s.Generation(), Since: known.Since, Age: seconds(now, news),
		Damped: !known.DampedUntil.IsZero(), DampedUntil: known.DampedUntil, Roles: []string{},
	}
	if known.Port > 0 {
		m.Address = hostPort(known.Address, uint32(known.Port))
	}
	m.fill(s)
	return m
}

// heardFor is how long a node that is only heard of may live: it may be about to join, or be out of reach from here alone.
const heardFor = time.Minute

// state is the word for users: there are four.
func state(now time.Time, s *record.Snapshot) string {
	switch l := s.Liveness(); {
	case l != record.Unknown:
		return l.String()
	case now.Sub(s.Updated()) < heardFor:
		return record.Suspect.String()
	}
	return record.Dead.String()
}

// seconds is the time that has passed, to the millisecond; 0 where it is not known when it began.
func seconds(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return math.Round(max(0, now.Sub(since).Seconds())*1000) / 1000
}

// fill takes what the record says. A value that does not decode counts as absent.
func (m *Member) fill(s *record.Snapshot) {
	if n := (&catalog.Node{}); decode(s, catalog.KeyNode, n) {
		m.Roles = append(m.Roles, n.GetRoles()...)
		m.Hostname, m.AgentID, m.Software = n.GetHostname(), n.GetAgentId(), n.GetVersion()
		m.Region, m.Zone = n.GetRegion(), n.GetZone()
		m.APIAddress = hostPort(n.GetAddress(), n.GetPort())
	}
	if r := (&catalog.Resources{}); decode(s, catalog.KeyResources, r) {
		m.Free, m.Total = sum(r.GetFree()), sum(r.GetTotal())
	}
	if h := (&catalog.Health{}); decode(s, catalog.KeyHealth, h) {
		m.Draining, m.Problems = h.GetDraining(), h.GetProblems()
	}
	if l := (&catalog.Leader{}); decode(s, catalog.KeyLeader, l) {
		m.Leader = &Leader{l.GetEpoch(), hostPort(l.GetAddress(), l.GetPort())}
	}
	for range s.Prefix(catalog.PrefixTask) {
		m.Tasks++
	}
}

func decode(s *record.Snapshot, key string, into proto.Message) bool {
	value, ok := s.Get(key)
	return ok && proto.Unmarshal(value, into) == nil
}

// hostPort joins an address and a port; empty where either is missing.
func hostPort(host string, port uint32) string {
	if host == "" || port == 0 {
		return ""
	}
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// sum adds up what is usual among the resources.
func sum(list []*catalog.Resource) *Resources {
	milli := map[string]float64{}
	r := &Resources{}
	for _, x := range list {
		switch {
		case len(x.GetExtra()) > 0:
		case x.GetKind() == catalog.Kind_SCALAR:
			milli[x.GetName()] += float64(x.GetMilli())
		case x.GetName() == "ports":
			for _, p := range x.GetRanges() {
				if p.GetBegin() <= p.GetEnd() && p.GetEnd() <= math.MaxUint16 {
					r.Ports += p.GetEnd() - p.GetBegin() + 1
				}
			}
		}
	}
	r.CPUs, r.GPUs, r.Mem, r.Disk = milli["cpus"]/1000, milli["gpus"]/1000, milli["mem"]/1000, milli["disk"]/1000
	return r
}
