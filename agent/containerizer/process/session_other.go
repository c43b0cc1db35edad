//go:build !linux

package process

import (
	"context"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
)

func (c *Containerizer) startSession(context.Context, string, *supervisor.Entry, containerizer.Process, func()) (containerizer.Session, error) {
	return nil, containerizer.ErrUnsupported
}
