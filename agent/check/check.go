// Package check runs health checks and general checks of tasks: over HTTP, by a TCP connection, by a command; with the
// timing that Mesos users know (spec: health checks and checks).
//
// A Spec is either kind of check, made by Health or General. Run probes until its context ends: the first time after
// the delay from the start of the task, then an interval after each finished attempt. Judge turns results of a health
// check into what is to be done about them; it is pure, and time is passed in. A Prober does the probing, in the
// network and with the environment of the task.
//
// The caller owns the goroutine that Run blocks, and gets each result in order.
package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"starling/master/mesos"
)

// Kind is how a check probes.
type Kind uint8

// The kinds.
const (
	HTTP Kind = iota + 1
	TCP
	Command
)

// Spec is one check.
type Spec struct {
	Kind Kind
	// Scheme ("http" or "https") and Path are for HTTP, Port for HTTP and TCP.
	Scheme, Path string
	Port         uint32
	// IPv6 probes ::1 instead of 127.0.0.1.
	IPv6 bool
	// Command is for the kind of that name.
	Command *mesos.CommandInfo
	// Delay is from the start of the task to the first attempt, Interval from the end of one to the next. Timeout bounds an
	// attempt; 0 means that nothing does.
	Delay, Interval, Timeout time.Duration
	// Grace and Failures are for health checks: failures within Grace of the start don't count, and at Failures in a row
	// the task is to be ended.
	Grace    time.Duration
	Failures uint32
}

// Result is the outcome of one attempt.
type Result struct {
	// Healthy is what counts for a health check.
	Healthy bool
	// Exit is the command's exit code, Status that of HTTP, Connected that of TCP; each nil where it was not learned.
	Exit      *int32
	Status    *uint32
	Connected *bool
	// Err says why an attempt failed, for people.
	Err error
}

// Health reads a health check. The error lists all faults.
func Health(h *mesos.HealthCheck) (Spec, error) {
	s := Spec{
		Delay: seconds(h.GetDelaySeconds()), Interval: seconds(h.GetIntervalSeconds()), Timeout: seconds(h.GetTimeoutSeconds()),
		Grace: seconds(h.GetGracePeriodSeconds()), Failures: max(1, h.GetConsecutiveFailures()),
	}
	kind := h.GetType()
	if kind == mesos.HealthCheck_UNKNOWN {
		switch {
		case h.GetHttp() != nil:
			kind = mesos.HealthCheck_HTTP
		case h.GetTcp() != nil:
			kind = mesos.HealthCheck_TCP
		case h.GetCommand() != nil:
			kind = mesos.HealthCheck_COMMAND
		}
	}
	switch kind {
	case mesos.HealthCheck_HTTP:
		s.Kind, s.Scheme, s.Path, s.Port = HTTP, h.GetHttp().GetScheme(), h.GetHttp().GetPath(), h.GetHttp().GetPort()
		s.IPv6 = h.GetHttp().GetProtocol() == mesos.NetworkInfo_IPv6
	case mesos.HealthCheck_TCP:
		s.Kind, s.Port, s.IPv6 = TCP, h.GetTcp().GetPort(), h.GetTcp().GetProtocol() == mesos.NetworkInfo_IPv6
	case mesos.HealthCheck_COMMAND:
		s.Kind, s.Command = Command, h.GetCommand()
	case mesos.HealthCheck_UNKNOWN:
	}
	return s, s.validate(h.GetDelaySeconds(), h.GetIntervalSeconds(), h.GetTimeoutSeconds(), h.GetGracePeriodSeconds())
}

// General reads a general check. The error lists all faults.
func General(c *mesos.CheckInfo) (Spec, error) {
	s := Spec{
		Delay: seconds(c.GetDelaySeconds()), Interval: seconds(c.GetIntervalSeconds()), Timeout: seconds(c.GetTimeoutSeconds()),
	}
	switch c.GetType() {
	case mesos.CheckInfo_HTTP:
		s.Kind, s.Path, s.Port = HTTP, c.GetHttp().GetPath(), c.GetHttp().GetPort()
	case mesos.CheckInfo_TCP:
		s.Kind, s.Port = TCP, c.GetTcp().GetPort()
	case mesos.CheckInfo_COMMAND:
		s.Kind, s.Command = Command, c.GetCommand().GetCommand()
	case mesos.CheckInfo_UNKNOWN:
	}
	return s, s.validate(c.GetDelaySeconds(), c.GetIntervalSeconds(), c.GetTimeoutSeconds())
}

func (s *Spec) validate(times ...float64) error {
	var faults []error
	if s.Scheme == "" {
		s.Scheme = "http"
	}
	switch s.Kind {
	case HTTP:
		if s.Scheme != "http" && s.Scheme != "https" {
			faults = append(faults, fmt.Errorf("scheme %q is neither http nor https", s.Scheme))
		}
		if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
			faults = append(faults, fmt.Errorf("path %q does not begin with a slash", s.Path))
		}
		faults = append(faults, s.validatePort())
	case TCP:
		faults = append(faults, s.validatePort())
	case Command:
		if s.Command.GetValue() == "" {
			faults = append(faults, errors.New("the command has no value"))
		}
	default:
		faults = append(faults, errors.New("it has no type"))
	}
	for _, t := range times {
		if t < 0 || math.IsNaN(t) {
			faults = append(faults, fmt.Errorf("a time of %v seconds is negative", t))
		}
	}
	return errors.Join(faults...)
}

func (s *Spec) validatePort() error {
	if s.Port == 0 || s.Port > 65535 {
		return fmt.Errorf("port %d is not between 1 and 65535", s.Port)
	}
	return nil
}

// seconds makes a duration of a number; what is too large for one is the longest.
func seconds(s float64) time.Duration {
	if s > math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}

// Status is the result of a general check as it is reported: empty where the attempt came to nothing.
func (s Spec) Status(r Result) *mesos.CheckStatusInfo {
	switch s.Kind {
	case HTTP:
		return &mesos.CheckStatusInfo{Type: mesos.CheckInfo_HTTP.Enum(), Http: &mesos.CheckStatusInfo_Http{StatusCode: r.Status}}
	case TCP:
		return &mesos.CheckStatusInfo{Type: mesos.CheckInfo_TCP.Enum(), Tcp: &mesos.CheckStatusInfo_Tcp{Succeeded: r.Connected}}
	default:
		return &mesos.CheckStatusInfo{Type: mesos.CheckInfo_COMMAND.Enum(), Command: &mesos.CheckStatusInfo_Command{ExitCode: r.Exit}}
	}
}

// Run probes until ctx ends. age is how old the task is already.
func Run(ctx context.Context, s Spec, age time.Duration, probe func(context.Context, Spec) Result, report func(Result)) {
	first := s.Delay - age
	if s.Interval > 0 && first < -s.Interval {
		// It was checked before, by an earlier life of the agent, which may have had many: not all of them at once.
		first = rand.N(s.Interval)
	}
	wait := time.NewTimer(max(0, first))
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		attempt, cancel := ctx, context.CancelFunc(func() {})
		if s.Timeout > 0 {
			attempt, cancel = context.WithTimeout(ctx, s.Timeout)
		}
		result := probe(attempt, s)
		cancel()
		if ctx.Err() != nil {
			return
		}
		report(result)
		// An interval of zero would be a loop without a breath.
		wait.Reset(max(s.Interval, 10*time.Millisecond))
	}
}

// Judge keeps the score of one task's health check. It is not safe for concurrent use.
type Judge struct {
	spec    Spec
	started time.Time
	// healthy is the last result that was told, nil before the first.
	healthy  *bool
	failures uint32
}

// NewJudge begins a score. healthy is what an earlier life of the agent told last, nil for nothing.
func NewJudge(s Spec, started time.Time, healthy *bool) *Judge {
	return &Judge{spec: s, started: started, healthy: healthy}
}

// Verdict is what to do about a result.
type Verdict struct {
	// Tell means that the result is to be reported, End that the task is to be ended after that.
	Tell, End bool
}

// Take takes the result of an attempt that ended now.
func (j *Judge) Take(now time.Time, healthy bool) Verdict {
	if healthy {
		j.failures = 0
		if j.healthy != nil && *j.healthy {
			return Verdict{}
		}
		j.healthy = &healthy
		return Verdict{Tell: true}
	}
	if j.healthy == nil && now.Before(j.started.Add(j.spec.Grace)) {
		return Verdict{}
	}
	j.failures++
	j.healthy = &healthy
	return Verdict{Tell: true, End: j.failures >= j.spec.Failures}
}
