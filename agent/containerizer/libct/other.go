//go:build !linux

package libct

import (
	"context"
	"errors"

	"starling/agent/containerizer/process"
)

// Containerizer runs plain processes only on this system.
type Containerizer struct{ *process.Containerizer }

// New returns an error on this system.
func New(Config, *process.Containerizer) (*Containerizer, error) {
	return nil, errors.New("containers can be had on Linux only")
}

// StopSupervisor does nothing on this system.
func (c *Containerizer) StopSupervisor(context.Context) error { return nil }
