package node

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// hookVariable names a program that is run before Marathon is, as Marathon's packages do.
const hookVariable = "HOOK_MARATHON_START"

// startHook runs that program and waits for it. Its output goes where ours does; where it fails, Marathon does not start.
func startHook(ctx context.Context, io Streams, environ []string) error {
	path := ""
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); name == hookVariable {
			path = value
		}
	}
	if path == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, io.Out, io.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s=%s has failed: %w", hookVariable, path, err)
	}
	return nil
}
