package hosts

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// servantVariable makes a process that is started as a task a servant; its value is how long it drains.
const servantVariable = "STARLING_TEST_SERVANT"

// warming is how long a servant is there before it is of use.
const warming = time.Second

// servant is an app as it has to be for an upgrade that nobody notices. Until it is warm it refuses everything, so that whoever
// comes too early hears of it. Told to end, it says at /health that it does not want new work, and does what comes all the same for
// as long as it drains; then it finishes what it has begun.
func servant(drain string) {
	wait, err := time.ParseDuration(drain)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	var ready, draining atomic.Bool
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !ready.Load() || draining.Load() && r.URL.Path == "/health" {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		if r.URL.Path != "/health" {
			<-time.After(20 * time.Millisecond) // the work
		}
		fmt.Fprint(w, os.Getenv("VERSION"))
	})
	server := &http.Server{Addr: net.JoinHostPort("", os.Getenv("PORT0"))}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	time.AfterFunc(warming, func() { ready.Store(true) })
	select {
	case err := <-ended:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	case <-told:
	}
	draining.Store(true)
	<-time.After(wait)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(5)
	}
	os.Exit(0)
}
