package node

import (
	"context"
	"runtime/debug"
	"time"
)

// version is set by the linker for a release.
var version string

// Version is that of the software: what the linker was told, or else what the build knows of its source.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+changes"
			}
		}
	}
	if revision == "" {
		return "development"
	}
	return "development-" + revision + modified
}

// readyPoll is how often readiness is looked at while a role starts.
const readyPoll = 5 * time.Millisecond

// waitFor waits until all conditions hold, and returns false when ctx ended before.
func waitFor(ctx context.Context, conditions []func() bool) bool {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for _, holds := range conditions {
		for !holds() {
			select {
			case <-ctx.Done():
				return false
			case <-tick.C:
			}
		}
	}
	return ctx.Err() == nil
}
