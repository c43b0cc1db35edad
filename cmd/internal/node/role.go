package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"starling/agent/executor"
	"starling/cmd/internal/flags"
)

// Streams are where a command prints: what was asked for on Out, the log on Err.
type Streams struct{ Out, Err io.Writer }

// UsageError is an error in what the user wrote, to be told apart by the exit code.
type UsageError struct{ Err error }

// Error is the sentence for the user.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what was wrong.
func (e *UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// role is one that is being built: the settings that were read, and the components so far.
type role struct {
	name       string
	set        *flags.Set
	common     *common
	place      place
	log        *slog.Logger
	levels     *levels        // of log
	level      *slog.LevelVar // the one that all inherit from
	metrics    *prometheus.Registry
	components []component
	// closers undo what was bound, in reverse order, when building fails.
	closers []func()
	// listening is what the ready line says, in order.
	listening []string
	// httpAddress is where the role's own HTTP API is reached, for other parts of dev.
	httpAddress string
	// ready are the conditions that must hold before the ready line.
	ready []func() bool
}

// parse reads the settings of a role, and turns wrong ones into a UsageError. It prints help when asked to.
func parse(io Streams, set *flags.Set, about string, args, environ []string) error {
	err := set.Parse(args, environ)
	if errors.Is(err, flags.ErrHelp) {
		set.Usage(io.Out, about)
		return err
	}
	if err != nil {
		return &UsageError{err}
	}
	if rest := set.Args(); len(rest) > 0 {
		return usagef("unexpected argument %q", rest[0])
	}
	return nil
}

// newRole decides where the role lives and what it logs to.
func newRole(name string, set *flags.Set, c *common) (*role, error) {
	log, levels, err := c.logger()
	if err != nil {
		return nil, &UsageError{err}
	}
	for _, w := range set.Warnings {
		log.Warn("flag has no effect", "reason", w)
	}
	p, err := c.resolve()
	if err != nil {
		return nil, err
	}
	r := &role{name: name, set: set, common: c, place: p, log: log, levels: levels, level: levels.root, metrics: prometheus.NewRegistry()}
	r.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	log.Debug("effective configuration", "flags", strings.Join(set.Effective(), " "))
	return r, nil
}

func (r *role) add(name string, run func(context.Context) error) { r.addSlow(name, stopTimeout, run) }

// addSlow adds a component that may take longer than others to stop.
func (r *role) addSlow(name string, stop time.Duration, run func(context.Context) error) {
	r.components = append(r.components, component{name, run, stop})
}

// listen binds a port that the role tells others of.
func (r *role) listen(what string, port int, aside bool) (net.Listener, int, error) {
	l, port, err := listen(what, r.place.bind, port, aside)
	if err != nil {
		return nil, 0, err
	}
	r.closers = append(r.closers, func() { l.Close() })
	r.tell(what, port)
	return l, port, nil
}

func (r *role) tell(what string, port int) {
	r.listening = append(r.listening, what+" "+net.JoinHostPort(r.place.address, strconv.Itoa(port)))
}

// run prints the ready line once everything is, and blocks until ctx ends or a component fails, or the machine has another address.
func (r *role) run(ctx context.Context, io Streams) error {
	r.add("announcement", func(ctx context.Context) error {
		if waitFor(ctx, r.ready) {
			fmt.Fprintf(io.Out, "%s is ready: %s\n", r.name, strings.Join(r.listening, ", "))
		}
		<-ctx.Done()
		return nil
	})
	if r.place.found {
		r.add("address", func(ctx context.Context) error { return thisMachine().stays(ctx, r.place.address) })
	}
	return runAll(ctx, r.log, r.components)
}

// abandon releases what was bound by a role that could not be built.
func (r *role) abandon() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
}

// shownFlags is what status pages show of the settings: those that have a value, durations in the way of Mesos, and no
// credentials.
func shownFlags(s *flags.Set) map[string]string {
	shown := map[string]string{}
	s.VisitAll(func(f *flag.Flag) {
		value := f.Value.String()
		if d, ok := f.Value.(*flags.Duration); ok {
			value = executor.Duration(d.Std())
		}
		if scheme, rest, ok := strings.Cut(value, "://"); ok {
			if at := strings.LastIndexByte(rest, '@'); at >= 0 {
				value = scheme + "://" + rest[at+1:]
			}
		}
		if value != "" {
			shown[strings.ReplaceAll(f.Name, "-", "_")] = value
		}
	})
	return shown
}
