package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	gossipapi "starling/gossip/api"
	"starling/gossip/catalog"
	"starling/marathon/scheduler"
	"starling/master/mesos/codec"
)

// maxPlaces bounds what a master may say of the places of nodes, in bytes: a hundred thousand nodes take half of it.
const maxPlaces = 64 << 20

// askDistances asks a master where the nodes of the mesh are. That is how a Marathon knows it which is no member of the mesh; masters
// that are not of Starling do not tell.
func askDistances(ctx context.Context, master string) (scheduler.Between, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+master+gossipapi.PathPlaces, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a master is spoken to without a proxy
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	var places []gossipapi.Place
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPlaces)).Decode(&places); err != nil {
		return nil, fmt.Errorf("cannot read its answer: %w", err)
	}
	return newDistances(places)
}

// distances is how far nodes are from each other, by what they are called.
type distances struct {
	byName, byHost map[string]*catalog.Coordinate // an entry is nil where a host name is that of several nodes
}

// newDistances takes over an answer. A host name stands for the agent of that name where there is one, also beside a master on the
// same machine.
func newDistances(places []gossipapi.Place) (*distances, error) {
	d := &distances{byName: make(map[string]*catalog.Coordinate), byHost: make(map[string]*catalog.Coordinate)}
	agents := make(map[string]bool) // host names that an agent has
	for _, p := range places {
		c := &catalog.Coordinate{}
		if err := codec.JSON.Unmarshal(p.Coordinate, c); err != nil {
			return nil, fmt.Errorf("cannot read the place of %q: %w", p.Name, err)
		}
		if err := c.Check(); err != nil {
			continue // a node that says what can't be true is nowhere
		}
		d.byName[p.Name] = c
		if p.AgentID != "" {
			d.byName[p.AgentID] = c
		}
		_, known := d.byHost[p.Hostname]
		switch isAgent := p.AgentID != ""; {
		case p.Hostname == "", known && agents[p.Hostname] && !isAgent:
		case known && agents[p.Hostname] == isAgent:
			d.byHost[p.Hostname] = nil
		default:
			d.byHost[p.Hostname], agents[p.Hostname] = c, isAgent
		}
	}
	return d, nil
}

// Distance returns the estimated round trip between two nodes.
func (d *distances) Distance(a, b string) (time.Duration, bool) {
	from, to := d.find(a), d.find(b)
	switch {
	case from == nil || to == nil || len(from.Vector) != len(to.Vector):
		return 0, false
	case from == to:
		return 0, true
	}
	return from.RTT(to), true
}

func (d *distances) find(name string) *catalog.Coordinate {
	if c := d.byName[name]; c != nil {
		return c
	}
	return d.byHost[name]
}
