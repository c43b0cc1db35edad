package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"

	"starling/agent/containerizer"
)

// How long the engine may take for an answer: to tell that it is there, to a question, and to a change of a container. The
// last two take it longer the more it has to do; whether it hangs is told by the first.
const (
	pingTimeout     = 5 * time.Second
	questionTimeout = 30 * time.Second
	changeTimeout   = time.Minute
)

// apiClient is an engine by Docker's client: the one file that knows it.
type apiClient struct {
	host string
	opts []client.Opt
	// base speaks no version in particular, and is only asked which there are. current speaks the newest that both sides know;
	// it is nil until the engine has answered, and again when it ended: the next one may be another. (The client could find the
	// version out itself, but while it does no other call may be made.)
	base    *client.Client
	current atomic.Pointer[client.Client]
	// refusal is why the last connection to the socket failed; nil after one that did not. The client drops it.
	refusal atomic.Pointer[syscall.Errno]
}

// dial prepares a client. host is a path or a URL; empty is what the environment says.
func dial(host string) (*apiClient, error) {
	if host == "" {
		host = os.Getenv(client.EnvOverrideHost)
	}
	if host == "" {
		host = client.DefaultDockerHost
	}
	if strings.HasPrefix(host, "/") {
		host = "unix://" + host
	}
	u, err := client.ParseHostURL(host)
	if err != nil {
		return nil, fmt.Errorf("address of the Docker engine: %w", err)
	}
	a := &apiClient{host: host}
	opts := []client.Opt{client.WithHost(host), client.WithTLSClientConfigFromEnv(), client.WithVersionFromEnv()}
	switch {
	case u.Scheme == "unix":
		opts = append(opts, client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", u.Host)
			a.refusal.Store(nil)
			if why, ok := errors.AsType[syscall.Errno](err); ok {
				a.refusal.Store(&why)
			}
			if deadline, ok := ctx.Deadline(); ok && err == nil && ctx.Value(hijack{}) != nil {
				err = conn.SetDeadline(deadline)
			}
			return conn, err
		}))
	case u.Scheme == "tcp" && os.Getenv(client.EnvOverrideCertPath) == "":
		// Whoever can talk to the engine is root on its machine.
		return nil, fmt.Errorf("address of the Docker engine %q: without TLS (%s) only a local socket is used", host, client.EnvOverrideCertPath)
	case u.Scheme != "tcp":
		return nil, fmt.Errorf("address of the Docker engine %q: only unix:// and tcp:// are known", host)
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("address of the Docker engine %q: %w", host, err)
	}
	a.opts, a.base = opts, c
	return a, nil
}

// client returns a client that speaks a version that the engine knows.
func (a *apiClient) client(ctx context.Context) (*client.Client, error) {
	if c := a.current.Load(); c != nil {
		return c, nil
	}
	limit, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	c, err := client.NewClientWithOpts(a.opts...)
	if err != nil {
		return nil, err
	}
	answer, err := a.base.Ping(limit)
	if err != nil {
		return nil, err
	}
	c.NegotiateAPIVersionPing(answer)
	a.current.CompareAndSwap(nil, c)
	return c, nil
}

// forget lets the next call find out anew what the engine speaks.
func (a *apiClient) forget() {
	if c := a.current.Swap(nil); c != nil {
		c.Close()
	}
}

// socket returns the path of the engine's socket, or an empty string.
func (a *apiClient) socket() string {
	path, ok := strings.CutPrefix(a.host, "unix://")
	if !ok {
		return ""
	}
	return path
}

func (a *apiClient) Close() error {
	a.forget()
	return a.base.Close()
}

// engineError says in the engine's words what is wrong, and what kind of error that is.
type engineError struct {
	text string
	kind error
}

func (e *engineError) Error() string { return e.text }
func (e *engineError) Unwrap() error { return e.kind }

// told classifies an error of a call whose own limit was set on top of ctx.
func (a *apiClient) told(ctx context.Context, err error) error {
	if err == nil || cerrdefs.IsNotModified(err) {
		return nil
	}
	if cause := ctx.Err(); errors.Is(cause, context.DeadlineExceeded) {
		return &engineError{"the Docker engine at " + a.host + " does not answer in time", cause}
	} else if cause != nil {
		return cause
	}
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	var dialled *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &engineError{"the Docker engine at " + a.host + " does not answer", errAway}
	case client.IsErrConnectionFailed(err), errors.As(err, &dialled), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		away := "cannot reach the Docker engine at " + a.host
		if why, ok := errors.AsType[syscall.Errno](err); ok {
			away += ": " + why.Error()
		} else if why := a.refusal.Load(); why != nil {
			away += ": " + why.Error()
		}
		return &engineError{away, errAway}
	case cerrdefs.IsNotFound(err):
		return &engineError{text, errNotFound}
	case cerrdefs.IsConflict(err):
		return &engineError{text, errConflict}
	}
	return &engineError{text, nil}
}

func (a *apiClient) Ping(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	_, err = c.Ping(limit)
	return a.told(ctx, err)
}

func (a *apiClient) HasImage(ctx context.Context, ref string) (bool, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return false, a.told(ctx, err)
	}
	_, err = c.ImageInspect(limit, ref)
	if cerrdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, a.told(ctx, err)
}

func (a *apiClient) Pull(ctx context.Context, ref string, login Login, progress func()) error {
	opts := image.PullOptions{}
	if login != (Login{}) {
		auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
			Username: login.Username, Password: login.Password, ServerAddress: login.Server,
			IdentityToken: login.IdentityToken, RegistryToken: login.RegistryToken,
		})
		if err != nil {
			return err
		}
		opts.RegistryAuth = auth
	}
	c, err := a.client(ctx)
	if err != nil {
		return a.told(ctx, err)
	}
	body, err := c.ImagePull(ctx, ref, opts)
	if err != nil {
		return a.told(ctx, err)
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var m struct {
			Error string `json:"error"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return a.told(ctx, err)
		}
		if m.Error != "" {
			return &engineError{m.Error, nil}
		}
		progress()
	}
}

func (a *apiClient) Volume(ctx context.Context, name string) (string, map[string]string, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return "", nil, a.told(ctx, err)
	}
	v, err := c.VolumeInspect(limit, name)
	return v.Driver, v.Options, a.told(ctx, err)
}

func (a *apiClient) Create(ctx context.Context, p *plan) (string, error) {
	limit, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return "", a.told(ctx, err)
	}
	config, host, net := p.request()
	if p.MAC != "" && versions.LessThan(c.ClientVersion(), "1.44") {
		//lint:ignore SA1019 engines before API 1.44 know no other place
		config.MacAddress = p.MAC
	} else if p.MAC != "" {
		p.endpoint(&net).MacAddress = p.MAC
	}
	created, err := c.ContainerCreate(limit, config, host, net, nil, p.Name)
	return created.ID, a.told(ctx, err)
}

// request is the plan in the engine's terms.
func (p *plan) request() (*container.Config, *container.HostConfig, *network.NetworkingConfig) {
	config := &container.Config{
		Image: p.Image, Entrypoint: p.Entrypoint, Cmd: p.Command, Env: p.Env, Labels: p.Labels,
		Hostname: p.Hostname, Domainname: p.Domainname, User: p.User, WorkingDir: p.Workdir,
		StopSignal: p.StopSignal, StopTimeout: p.StopTimeout, Tty: p.TTY, OpenStdin: p.TTY,
		ExposedPorts: nat.PortSet{}, Volumes: map[string]struct{}{},
	}
	if p.NoHealthcheck {
		config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
	}
	for _, e := range p.Exposed {
		config.ExposedPorts[nat.Port(e)] = struct{}{}
	}
	for _, v := range p.Volumes {
		config.Volumes[v] = struct{}{}
	}
	bindings := nat.PortMap{}
	for _, m := range p.Ports {
		config.ExposedPorts[nat.Port(m.Container)] = struct{}{}
		bindings[nat.Port(m.Container)] = append(bindings[nat.Port(m.Container)], nat.PortBinding{HostIP: m.IP, HostPort: m.Host})
	}
	host := &container.HostConfig{
		Binds: p.Binds, VolumeDriver: p.VolumeDriver, VolumesFrom: p.VolumesFrom, Tmpfs: p.Tmpfs,
		ReadonlyRootfs: p.ReadOnly, StorageOpt: p.StorageOpt,
		NetworkMode: container.NetworkMode(p.Network), PortBindings: bindings, PublishAllPorts: p.PublishAll, Links: p.Links,
		DNS: p.DNS, DNSSearch: p.DNSSearch, DNSOptions: p.DNSOptions, ExtraHosts: p.Hosts,
		Privileged: p.Privileged, CapAdd: p.CapAdd, CapDrop: p.CapDrop, SecurityOpt: p.SecurityOpt, GroupAdd: p.Groups,
		IpcMode: container.IpcMode(p.IPC), PidMode: container.PidMode(p.PID), UTSMode: container.UTSMode(p.UTS),
		UsernsMode: container.UsernsMode(p.Userns), CgroupnsMode: container.CgroupnsMode(p.CgroupNS), Runtime: p.Runtime, Init: p.Init,
		LogConfig: container.LogConfig{Type: p.LogDriver, Config: p.LogOptions}, Sysctls: p.Sysctls, Annotations: p.Annotations,
		ShmSize: p.ShmSize, OomScoreAdj: p.OOMScore,
		Resources: container.Resources{
			CPUShares: p.Shares, CPUQuota: p.Quota, CPUPeriod: p.Period, NanoCPUs: p.NanoCPUs, CpusetCpus: p.CPUs, CpusetMems: p.Mems,
			Memory: p.Memory, MemorySwap: p.MemoryPlus, MemoryReservation: p.Reservation, MemorySwappiness: p.Swappiness,
			OomKillDisable: p.OOMKillDisable, PidsLimit: p.Pids, BlkioWeight: p.BlkioWeight, CgroupParent: p.CgroupParent,
			DeviceCgroupRules: p.DeviceRules,
		},
	}
	for _, d := range p.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Permissions})
	}
	for _, u := range p.Ulimits {
		host.Ulimits = append(host.Ulimits, &units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, m := range p.Mounts {
		v := mount.Mount{Type: mount.TypeVolume, Source: m.Name, Target: m.Target, ReadOnly: m.ReadOnly}
		if m.Driver != "" || len(m.Options) > 0 {
			v.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: m.Driver, Options: m.Options}}
		}
		host.Mounts = append(host.Mounts, v)
	}
	var net *network.NetworkingConfig
	if len(p.Aliases) > 0 {
		p.endpoint(&net).Aliases = p.Aliases
	}
	if p.IPv4 != "" || p.IPv6 != "" {
		p.endpoint(&net).IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: p.IPv4, IPv6Address: p.IPv6}
	}
	return config, host, net
}

// endpoint is the place of the container in its network.
func (p *plan) endpoint(config **network.NetworkingConfig) *network.EndpointSettings {
	if *config == nil {
		*config = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{p.Network: {}}}
	}
	return (*config).EndpointsConfig[p.Network]
}

func (a *apiClient) Start(ctx context.Context, id string) error {
	limit, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	return a.told(ctx, c.ContainerStart(limit, id, container.StartOptions{}))
}

func (a *apiClient) Inspect(ctx context.Context, id string) (inspection, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return inspection{}, a.told(ctx, err)
	}
	r, raw, err := c.ContainerInspectWithRaw(limit, id, false)
	if err != nil {
		return inspection{}, a.told(ctx, err)
	}
	if r.ContainerJSONBase == nil || r.State == nil {
		return inspection{}, fmt.Errorf("the Docker engine does not tell the state of container %q", id)
	}
	i := inspection{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Status: r.State.Status, Running: r.State.Running, OOM: r.State.OOMKilled,
		PID: r.State.Pid, ExitCode: r.State.ExitCode, Error: r.State.Error,
		Started: engineTime(r.State.StartedAt), Finished: engineTime(r.State.FinishedAt), Raw: bytes.TrimSpace(raw),
	}
	if r.Config != nil {
		i.Labels, i.TTY = r.Config.Labels, r.Config.Tty
	}
	if r.HostConfig != nil {
		i.Memory, i.Swap, i.Network = r.HostConfig.Memory, r.HostConfig.MemorySwap, string(r.HostConfig.NetworkMode)
	}
	if r.NetworkSettings != nil {
		for _, name := range slices.Sorted(maps.Keys(r.NetworkSettings.Networks)) {
			n := r.NetworkSettings.Networks[name]
			if n != nil && (n.IPAddress != "" || n.GlobalIPv6Address != "") {
				i.Networks = append(i.Networks, attached{Network: name, IPv4: n.IPAddress, IPv6: n.GlobalIPv6Address})
			}
		}
	}
	return i, nil
}

// engineTime reads a time; the engine's year 1 is none.
func engineTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

func (a *apiClient) List(ctx context.Context, label string) ([]listed, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return nil, a.told(ctx, err)
	}
	found, err := c.ContainerList(limit, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	if err != nil {
		return nil, a.told(ctx, err)
	}
	list := make([]listed, 0, len(found))
	for _, s := range found {
		l := listed{ID: s.ID, Labels: s.Labels, Status: s.State}
		for _, n := range s.Names {
			if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") { // others are names by which it is linked
				l.Name = n
			}
		}
		list = append(list, l)
	}
	return list, nil
}

func (a *apiClient) Events(ctx context.Context, label string, each func(event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := a.client(ctx)
	if err != nil {
		return a.told(ctx, err)
	}
	defer a.forget()
	messages, errs := c.Events(ctx, events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", label), filters.Arg("type", string(events.ContainerEventType)),
			filters.Arg("event", "kill"), filters.Arg("event", "die"), filters.Arg("event", "destroy")),
	})
	for {
		select {
		case m := <-messages:
			e := event{ID: m.Actor.ID, Action: string(m.Action), ExitCode: -1, Signal: -1}
			if n, err := strconv.Atoi(m.Actor.Attributes["exitCode"]); err == nil {
				e.ExitCode = n
			}
			if n, err := strconv.Atoi(m.Actor.Attributes["signal"]); err == nil {
				e.Signal = n
			}
			each(e)
		case err := <-errs:
			return a.told(ctx, err)
		}
	}
}

func (a *apiClient) Kill(ctx context.Context, id, signal string) error {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	return a.told(ctx, c.ContainerKill(limit, id, signal))
}

func (a *apiClient) Stop(ctx context.Context, id string, grace time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, grace+changeTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	seconds := int((grace + time.Second - 1) / time.Second)
	return a.told(ctx, c.ContainerStop(limit, id, container.StopOptions{Timeout: &seconds}))
}

func (a *apiClient) Remove(ctx context.Context, id string, force bool) error {
	limit, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	return a.told(ctx, c.ContainerRemove(limit, id, container.RemoveOptions{RemoveVolumes: true, Force: force}))
}

func (a *apiClient) Update(ctx context.Context, id string, l limits) error {
	limit, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return a.told(ctx, err)
	}
	_, err = c.ContainerUpdate(limit, id, container.UpdateConfig{Resources: container.Resources{
		CPUShares: l.Shares, CPUQuota: l.Quota, Memory: l.Memory, MemoryReservation: l.Reservation, MemorySwap: l.Swap,
	}})
	return a.told(ctx, err)
}

func (a *apiClient) Stats(ctx context.Context, id string) (containerizer.Usage, error) {
	limit, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	c, err := a.client(limit)
	if err != nil {
		return containerizer.Usage{}, a.told(ctx, err)
	}
	r, err := c.ContainerStatsOneShot(limit, id)
	if err != nil {
		return containerizer.Usage{}, a.told(ctx, err)
	}
	defer r.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		return containerizer.Usage{}, a.told(ctx, err)
	}
	u := containerizer.Usage{
		CPUUser:   time.Duration(s.CPUStats.CPUUsage.UsageInUsermode),
		CPUSystem: time.Duration(s.CPUStats.CPUUsage.UsageInKernelmode),
		Processes: int(s.PidsStats.Current),
	}
	// Both versions of cgroups count pages that belong to no file; the file names differ.
	for _, key := range []string{"total_rss", "rss", "anon"} {
		if n, ok := s.MemoryStats.Stats[key]; ok {
			u.MemBytes = int64(n)
			break
		}
	}
	if u.MemBytes == 0 {
		u.MemBytes = int64(s.MemoryStats.Usage)
	}
	return u, nil
}
