package validation

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"starling/master/mesos"
)

// Command checks a command: its environment.
func Command(c *mesos.CommandInfo) error { return environment(c.GetEnvironment()) }

func environment(env *mesos.Environment) error {
	for _, v := range env.GetVariables() {
		name := v.GetName()
		switch v.GetType() {
		case mesos.Environment_Variable_SECRET:
			switch {
			case v.Secret == nil:
				return fmt.Errorf("Environment variable '%s' of type 'SECRET' must have a secret set", name)
			case v.Value != nil:
				return fmt.Errorf("Environment variable '%s' of type 'SECRET' must not have a value set", name)
			}
			if err := secret(v.GetSecret()); err != nil {
				return fmt.Errorf("Environment variable '%s' specifies an invalid secret: %w", name, err)
			}
			if bytes.IndexByte(v.GetSecret().GetValue().GetData(), 0) >= 0 {
				return fmt.Errorf("Environment variable '%s' specifies a secret containing null bytes, which is not allowed in the environment", name)
			}
		case mesos.Environment_Variable_VALUE:
			switch {
			case v.Value == nil:
				return fmt.Errorf("Environment variable '%s' of type 'VALUE' must have a value set", name)
			case v.Secret != nil:
				return fmt.Errorf("Environment variable '%s' of type 'VALUE' must not have a secret set", name)
			}
		default:
			return errors.New("Environment variable of type 'UNKNOWN' is not allowed")
		}
	}
	return nil
}

func secret(s *mesos.Secret) error {
	switch s.GetType() {
	case mesos.Secret_REFERENCE:
		if s.Reference == nil {
			return errors.New("Secret of type REFERENCE must have the 'reference' field set")
		}
		if s.Value != nil {
			return fmt.Errorf("Secret '%s' of type REFERENCE must not have the 'value' field set", s.GetReference().GetName())
		}
	case mesos.Secret_VALUE:
		if s.Value == nil {
			return errors.New("Secret of type VALUE must have the 'value' field set")
		}
		if s.Reference != nil {
			return errors.New("Secret of type VALUE must not have the 'reference' field set")
		}
	}
	return nil
}

// HealthCheck checks a health check. A type that can be inferred (from the one of command, http and tcp that is set) must
// have been filled in.
func HealthCheck(h *mesos.HealthCheck) error {
	switch kind := h.GetType(); {
	case h.Type == nil:
		return errors.New("HealthCheck must specify 'type'")
	case kind == mesos.HealthCheck_COMMAND:
		if h.Command == nil {
			return errors.New("Expecting 'command' to be set for COMMAND health check")
		}
		if err := checkCommand(h.Command, "Command health check", "Health check's"); err != nil {
			return err
		}
	case kind == mesos.HealthCheck_HTTP:
		if h.Http == nil {
			return errors.New("Expecting 'http' to be set for HTTP health check")
		}
		if s := h.Http.GetScheme(); h.Http.Scheme != nil && s != "http" && s != "https" {
			return fmt.Errorf("Unsupported HTTP health check scheme: '%s'", s)
		}
		if p := h.Http.GetPath(); h.Http.Path != nil && !strings.HasPrefix(p, "/") {
			return fmt.Errorf("The path '%s' of HTTP health check must start with '/'", p)
		}
	case kind == mesos.HealthCheck_TCP:
		if h.Tcp == nil {
			return errors.New("Expecting 'tcp' to be set for TCP health check")
		}
	default:
		return fmt.Errorf("'%s' is not a valid health check type", kind)
	}
	return times(
		"delay_seconds", h.DelaySeconds, "grace_period_seconds", h.GracePeriodSeconds,
		"interval_seconds", h.IntervalSeconds, "timeout_seconds", h.TimeoutSeconds,
	)
}

// Check checks a check.
func Check(c *mesos.CheckInfo) error {
	switch kind := c.GetType(); {
	case c.Type == nil:
		return errors.New("CheckInfo must specify 'type'")
	case kind == mesos.CheckInfo_COMMAND:
		if c.Command == nil {
			return errors.New("Expecting 'command' to be set for COMMAND check")
		}
		if err := checkCommand(c.Command.GetCommand(), "Command check", "Check's"); err != nil {
			return err
		}
	case kind == mesos.CheckInfo_HTTP:
		if c.Http == nil {
			return errors.New("Expecting 'http' to be set for HTTP check")
		}
		if p := c.Http.GetPath(); c.Http.Path != nil && !strings.HasPrefix(p, "/") {
			return fmt.Errorf("The path '%s' of HTTP check must start with '/'", p)
		}
	case kind == mesos.CheckInfo_TCP:
		if c.Tcp == nil {
			return errors.New("Expecting 'tcp' to be set for TCP check")
		}
	default:
		return fmt.Errorf("'%s' is not a valid check type", kind)
	}
	return times("delay_seconds", c.DelaySeconds, "interval_seconds", c.IntervalSeconds, "timeout_seconds", c.TimeoutSeconds)
}

func checkCommand(c *mesos.CommandInfo, what, whose string) error {
	if c.GetValue() == "" {
		wants := "'executable path'"
		if c.GetShell() {
			wants = "'shell command'"
		}
		return fmt.Errorf("%s must contain %s", what, wants)
	}
	if err := Command(c); err != nil {
		return fmt.Errorf("%s `CommandInfo` is invalid: %w", whose, err)
	}
	return nil
}

// times takes names and optional seconds in turn.
func times(pairs ...any) error {
	for i := 0; i < len(pairs); i += 2 {
		// Written so that a NaN fails too.
		if v := pairs[i+1].(*float64); v != nil && !(*v >= 0) {
			return fmt.Errorf("Expecting '%s' to be non-negative", pairs[i])
		}
	}
	return nil
}

// Container checks a container; nil is none, which is valid.
func Container(c *mesos.ContainerInfo) error {
	// The type of nothing reads as the first of the enum, which is DOCKER.
	if c == nil {
		return nil
	}
	for _, v := range c.GetVolumes() {
		if err := volume(v); err != nil {
			return fmt.Errorf("Invalid volume: %w", err)
		}
	}
	if c.GetType() != mesos.ContainerInfo_DOCKER {
		return nil
	}
	if c.Docker == nil {
		return errors.New("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo")
	}
	for _, p := range c.Docker.GetParameters() {
		if p.GetKey() == "name" {
			// The agent finds its containers by the names that it gave them.
			return errors.New("Parameter in DockerInfo must not be 'name'")
		}
	}
	return nil
}

func volume(v *mesos.Volume) error {
	ways := 0
	for _, set := range []bool{v.HostPath != nil, v.Image != nil, v.Source != nil} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("Only one of them should be set: 'host_path', 'image' and 'source'")
	}
	if v.Source == nil {
		return nil
	}
	s := v.Source
	unset := func(field, kind string) error { return fmt.Errorf("'source.%s' is not set for %s volume", field, kind) }
	switch s.GetType() {
	case mesos.Volume_Source_DOCKER_VOLUME:
		if s.DockerVolume == nil {
			return unset("docker_volume", "DOCKER_VOLUME")
		}
	case mesos.Volume_Source_HOST_PATH:
		if s.HostPath == nil {
			return unset("host_path", "HOST_PATH")
		}
	case mesos.Volume_Source_SANDBOX_PATH:
		if s.SandboxPath == nil {
			return unset("sandbox_path", "SANDBOX_PATH")
		}
	case mesos.Volume_Source_SECRET:
		if s.Secret == nil {
			return unset("secret", "SECRET")
		}
	case mesos.Volume_Source_CSI_VOLUME:
		if s.CsiVolume == nil {
			return unset("csi_volume", "CSI")
		}
		if s.CsiVolume.StaticProvisioning == nil {
			return unset("csi_volume.static_provisioning", "CSI")
		}
	default:
		return errors.New("'source.type' is unknown")
	}
	return nil
}
