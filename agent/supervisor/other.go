//go:build !linux

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// errSystem is what everything here returns: pidfds and /proc have no counterpart elsewhere.
var errSystem = errors.New("tasks can be supervised on Linux only")

// Main tells that there is no supervisor on this system.
func Main([]string) int {
	fmt.Fprintf(os.Stderr, "supervisor: %v\n", errSystem)
	return 1
}

// Build knows nothing on this system.
func Build(string) string { return "" }

// Ensure returns an error on this system.
func Ensure(context.Context, Config) (*Client, error) { return nil, errSystem }

func dial(context.Context, string) (net.Conn, error) { return nil, errSystem }

// KillProcesses returns an error on this system.
func KillProcesses(context.Context, string, Container) error { return errSystem }

// Processes returns an error on this system.
func Processes(string, Container) ([]int, error) { return nil, errSystem }

// OOMKilled knows nothing on this system.
func OOMKilled([]string, int) bool { return false }

// Read returns an error on this system.
func Read(string) ([]Container, error) { return nil, errSystem }

// Handle is a hold on one process; there is none on this system.
type Handle struct{}

// OpenHandle returns an error on this system.
func OpenHandle(int, uint64) (*Handle, error) { return nil, errSystem }

// Signal returns an error on this system.
func (h *Handle) Signal(syscall.Signal) error { return errSystem }

// SignalGroup returns an error on this system.
func (h *Handle) SignalGroup(syscall.Signal) error { return errSystem }

// Exit knows nothing on this system.
func (h *Handle) Exit() (status int, known, ended bool) { return 0, false, false }

// Close does nothing on this system.
func (h *Handle) Close() {}
