package zkelection

import (
	"context"
	"errors"
	"log/slog"

	"starling/master/election"
	"starling/master/zookeeper"
)

// Detector tells who leads, from the same nodes. While it is merely disconnected it stays with what it knew: those who can
// still reach ZooKeeper may know better, but nobody on this side would know of another.
type Detector struct {
	client *zookeeper.Client
	log    *slog.Logger

	turn chan struct{} // holds a token while somebody looks; guards what follows
	// leader is what was seen, and news what tells when to look again; nil before the first look.
	leader *election.Candidate
	news   <-chan zookeeper.Event
	bad    string // the last node that could not be read
}

var _ election.Detector = (*Detector)(nil)

// NewDetector returns a detector. The client runs for longer than it; log is told of nodes that can't be read, and may be nil.
func NewDetector(client *zookeeper.Client, log *slog.Logger) *Detector {
	return &Detector{client: client, log: logger(log), turn: make(chan struct{}, 1)}
}

// Leader implements election.Detector.
func (d *Detector) Leader(ctx context.Context, known *election.Candidate) (*election.Candidate, error) {
	for {
		leader, news, err := d.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, zookeeper.ErrUncertain):
			continue // the client waits for a connection
		case err != nil:
			return nil, err
		case (leader == nil) != (known == nil) || leader != nil && *leader != *known:
			return leader, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// look returns who leads as of now, and what tells when that may have changed.
func (d *Detector) look(ctx context.Context) (*election.Candidate, <-chan zookeeper.Event, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	stale := d.news == nil
	select {
	case <-d.news:
		stale = true
	default:
	}
	if stale {
		d.news = nil
		leader, news, err := d.read(ctx)
		if err != nil {
			return nil, nil, err
		}
		d.leader, d.news = leader, news
	}
	if d.leader == nil {
		return nil, d.news, nil
	}
	own := *d.leader
	return &own, d.news, nil
}

// read reads the lowest node.
func (d *Detector) read(ctx context.Context) (*election.Candidate, <-chan zookeeper.Event, error) {
	for {
		children, news, err := d.client.WatchChildren(ctx, "")
		if errors.Is(err, zookeeper.ErrNoNode) {
			_, there, made, err := d.client.Watch(ctx, "")
			if err != nil || !there {
				return nil, made, err
			}
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		all := members(children)
		if len(all) == 0 {
			return nil, news, nil
		}
		data, _, err := d.client.Get(ctx, all[0].name)
		if errors.Is(err, zookeeper.ErrNoNode) {
			continue // it has just gone
		}
		if err != nil {
			return nil, nil, err
		}
		leader, err := decode(all[0].label, data)
		if err != nil {
			// Whoever leads, nobody can be sent there.
			if d.bad != all[0].name {
				d.bad = all[0].name
				d.log.Error("leader's node cannot be read", "node", all[0].name, "err", err)
			}
			return nil, news, nil
		}
		return &leader, news, nil
	}
}
