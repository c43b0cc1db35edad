package containerizer

import (
	"context"

	"starling/master/mesos"
)

// Without stands in, embedded, for what a containerizer does not do: each method returns ErrUnsupported, but that there
// are no groups to be listed or closed.
type Without struct{}

// OpenGroup implements Groups.
func (Without) OpenGroup(context.Context, Group) ([]*mesos.NetworkInfo, error) {
	return nil, ErrUnsupported
}

// CloseGroup implements Groups.
func (Without) CloseGroup(context.Context, string) error { return nil }

// ListGroups implements Groups.
func (Without) ListGroups(context.Context) ([]string, error) { return nil, nil }

// Exec implements Sessions.
func (Without) Exec(context.Context, string, Process) (Session, error) { return nil, ErrUnsupported }

// Attach implements Sessions.
func (Without) Attach(context.Context, string) (Session, error) { return nil, ErrUnsupported }

// Resize implements Containerizer.
func (Without) Resize(context.Context, string, Limits) error { return ErrUnsupported }
