package node

import (
	"context"
	"fmt"

	"starling/cmd/internal/clusterkey"
	"starling/cmd/internal/flags"
)

// Keygen prints a new cluster key, for a file that every node gets as --cluster-key-file.
func Keygen(_ context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling keygen", "STARLING_")
	if err := parse(io, set, "Prints a new cluster key. Keep it in a file that only its user can read:\n  (umask 077; starling keygen >cluster.key)", args, environ); err != nil {
		return err
	}
	_, err := fmt.Fprintln(io.Out, clusterkey.New())
	return err
}
