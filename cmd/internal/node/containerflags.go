package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/master/mesos"
	"starling/master/mesos/codec"
)

// containerFlags are the settings of how an agent runs containers.
type containerFlags struct {
	containerizers, isolation  flags.List
	sandboxDirectory           string
	environment                environmentFlag
	defaultContainer           containerInfoFlag
	allowedHostPaths           flags.List
	forbidPrivileged           bool
	cfs, limitSwap             bool
	cgroupsRoot                string
	pidsLimit                  int64
	gpus                       flags.List
	docker                     dockerFlags
	images                     imageFlags
	networks                   networkFlags
	fetcher                    fetcherFlags
	registration, reregister   flags.Duration
	recovery                   flags.Duration
	logSize                    flags.Bytes
	logFiles                   int
	diskQuota                  bool
	diskQuotaInterval, gcEvery flags.Duration
	keepExecutors              int
}

// dockerFlags are the settings of the Docker containerizer.
type dockerFlags struct {
	socket                   string
	removeDelay, stopTimeout flags.Duration
	killOrphans              bool
	pullTimeout              flags.Duration
}

// imageFlags are the settings of images that are run without Docker, and of credentials for either.
type imageFlags struct {
	config    secretFlag
	providers flags.List
	backend   string
	registry  string
	storeDir  flags.Path
	insecure  flags.List
	linkLocal bool
	gcAge     flags.Duration
}

// networkFlags are the settings of the networks of containers.
type networkFlags struct {
	name, bridge, subnet string
	denied               flags.List
	cniConfig            flags.Path
	cniPlugins           string
	dns                  string
	askNode              bool
	// node is where containers ask the node, the zero value where they do not; gateway tells that it answers on its bridge, too.
	node    netip.Addr
	gateway bool
}

// fetcherFlags are the settings of what tasks have fetched.
type fetcherFlags struct {
	cacheDir                   flags.Path
	cacheSize, maxSize         flags.Bytes
	stall, timeout             flags.Duration
	frameworksHome, hadoopHome flags.Path
	allowed                    flags.Networks
}

func (c *containerFlags) register(s *flags.Set) {
	c.containerizers, c.isolation = flags.List{"mesos"}, flags.List{"posix/cpu", "posix/mem"}
	c.sandboxDirectory = "/mnt/mesos/sandbox"
	s.Var(&c.containerizers, "containerizers", "what runs containers, in order of preference: `mesos`, docker")
	s.Var(&c.isolation, "isolation", "what every task is isolated in, as `filesystem/linux,namespaces/pid,cgroups/cpu`; what a task asks for it gets all the same")
	s.StringVar(&c.sandboxDirectory, "sandbox-directory", c.sandboxDirectory, "the `folder` at which a container with an image sees its sandbox")
	s.Var(&c.environment, "executor-environment-variables", "what to add to the environment of executors and tasks, as a `JSON` object")
	s.Var(&c.defaultContainer, "default-container-info", "the container of tasks and executors that name none, a ContainerInfo as `JSON`")
	s.Var(&c.allowedHostPaths, "allowed-host-paths", "the only `folders` of the node whose contents tasks may have as volumes; none names all")
	s.BoolVar(&c.forbidPrivileged, "forbid-privileged", false, "refuse tasks that ask for privileges beyond those of every container")
	s.BoolVar(&c.cfs, "cgroups-enable-cfs", false, "make cpus a cap, not only a share")
	s.BoolVar(&c.limitSwap, "cgroups-limit-swap", false, "count swap against the memory limit")
	s.StringVar(&c.cgroupsRoot, "cgroups-root", "", "the `cgroup` below which those of tasks stand; made where there is none, and left there (default: the agent's own)")
	s.Int64Var(&c.pidsLimit, "cgroups-pids-limit", 0, "how `many` processes a container may have (0: no limit)")
	s.Var(&c.gpus, "nvidia-gpu-devices", "the `numbers` of the GPUs to offer, with gpu/nvidia in --isolation (all)")
	c.docker.register(s)
	c.images.register(s)
	c.networks.register(s)
	c.fetcher.register(s)
	c.registration, c.reregister, c.recovery = flags.Duration(time.Minute), flags.Duration(2*time.Second), flags.Duration(15*time.Minute)
	s.Var(&c.registration, "executor-registration-timeout", "how long an executor may take to register after its start")
	s.Var(&c.reregister, "executor-reregistration-timeout", "how long executors have to register again after a restart of the agent, 15s at most")
	s.Var(&c.recovery, "recovery-timeout", "how long executors wait for an agent that is gone")
	c.logSize, c.logFiles = 10<<20, 10
	s.Var(&c.logSize, "container-log-size", "how large stdout and stderr of a task may become before they are put aside (0: no limit)")
	s.IntVar(&c.logFiles, "container-log-files", c.logFiles, "how `many` files of each are kept, the current one included")
	c.diskQuotaInterval, c.gcEvery, c.keepExecutors = flags.Duration(15*time.Second), flags.Duration(time.Minute), 150
	s.BoolVar(&c.diskQuota, "enforce-container-disk-quota", false, "end tasks whose sandbox takes more than their disk")
	s.Var(&c.diskQuotaInterval, "container-disk-watch-interval", "how often sandboxes are measured")
	s.Var(&c.gcEvery, "disk-watch-interval", "how often it is looked whether old sandboxes have to go")
	s.IntVar(&c.keepExecutors, "max-completed-executors-per-framework", c.keepExecutors, "how `many` ended executors of a framework are remembered")
}

func (d *dockerFlags) register(s *flags.Set) {
	d.socket, d.killOrphans = "/var/run/docker.sock", true
	d.removeDelay, d.pullTimeout = flags.Duration(6*time.Hour), flags.Duration(15*time.Minute)
	s.StringVar(&d.socket, "docker-socket", d.socket, "the `socket` of the Docker engine; DOCKER_HOST counts where this is not set")
	s.Var(&d.removeDelay, "docker-remove-delay", "how long ended containers are left with the Docker engine")
	s.Var(&d.stopTimeout, "docker-stop-timeout", "how long containers of Docker that are ended at once get all the same")
	s.BoolVar(&d.killOrphans, "docker-kill-orphans", d.killOrphans, "end containers of this agent with the Docker engine that are nobody's task")
	s.Var(&d.pullTimeout, "docker-pull-timeout", "how long an image may take to be pulled")
}

func (i *imageFlags) register(s *flags.Set) {
	i.providers, i.registry, i.gcAge = flags.List{"docker"}, "https://registry-1.docker.io", flags.Duration(7*24*time.Hour)
	s.Var(&i.config, "docker-config", "credentials for registries, the `JSON` of a Docker config.json or the path of one")
	s.Var(&i.providers, "image-providers", "the kinds of images that are run without Docker: `docker`")
	s.StringVar(&i.backend, "image-provisioner-backend", "", "how images become root file systems: `overlay` or copy (overlay where it can be had)")
	s.StringVar(&i.registry, "docker-registry", i.registry, "where images come from that name no registry: a `URL`, or a folder of archives and OCI layouts")
	s.Var(&i.storeDir, "docker-store-dir", "the `folder` of the layers of images (store/docker in --work-dir)")
	s.Var(&i.insecure, "docker-insecure-registries", "the `registries` that are spoken to without TLS, beside those on this machine")
	s.BoolVar(&i.linkLocal, "docker-registry-link-local", false, "let registries have link-local addresses")
	s.Var(&i.gcAge, "docker-store-gc-age", "how long layers are kept that nothing uses")
}

func (n *networkFlags) register(s *flags.Set) {
	n.name, n.bridge, n.denied = "mesos-bridge", "starling0", flags.List{"169.254.0.0/16"}
	s.StringVar(&n.name, "network-name", n.name, "the `name` by which tasks ask for the bridged network")
	s.StringVar(&n.bridge, "network-bridge", n.bridge, "the `interface` of the bridged network")
	s.StringVar(&n.subnet, "network-subnet", "", "the `subnet` of the bridged network, as 10.213.0.0/20 (one that is free)")
	s.Var(&n.denied, "network-denied", "the `networks` that containers of the bridged network do not reach")
	s.Var(&n.cniConfig, "network-cni-config-dir", "the `folder` of the configurations of CNI networks")
	s.StringVar(&n.cniPlugins, "network-cni-plugins-dir", "", "the `folders` of CNI plugins, separated by colons")
	s.StringVar(&n.dns, "default-container-dns", "", "the name servers of containers, as `JSON` or the path of a file")
	s.BoolVar(&n.askNode, "container-dns", false, "have containers ask this node's DNS, which then has to be at port 53; --default-container-dns wins")
}

func (f *fetcherFlags) register(s *flags.Set) {
	f.cacheSize, f.stall, f.timeout = 2<<30, flags.Duration(time.Minute), flags.Duration(6*time.Hour)
	s.Var(&f.cacheDir, "fetcher-cache-dir", "the `folder` of what was fetched for several tasks (fetch in --work-dir)")
	s.Var(&f.cacheSize, "fetcher-cache-size", "how much may be kept there (0: nothing)")
	s.Var(&f.stall, "fetcher-stall-timeout", "how long a download may bring nothing")
	s.Var(&f.timeout, "fetcher-timeout", "how long all downloads of a task may take")
	s.Var(&f.maxSize, "fetcher-max-size", "how much one URI may bring (0: what the disk holds)")
	s.Var(&f.frameworksHome, "frameworks-home", "the `folder` that relative paths of URIs begin in")
	s.Var(&f.hadoopHome, "hadoop-home", "the `folder` of the Hadoop client, for hdfs:// and its kin")
	s.Var(&f.allowed, "fetcher-allow-addresses", "the link-local `networks` that may be fetched from all the same")
}

// The containerizers, and the isolators that Mesos has a name for.
var (
	knownContainerizers = []string{"mesos", "docker"}
	knownIsolators      = []string{
		"posix/cpu", "posix/mem", "posix/disk", "posix/rlimits", "filesystem/posix", "filesystem/linux", "filesystem/shared",
		"disk/du", "disk/xfs", "cgroups/all", "cgroups/blkio", "cgroups/cpu", "cgroups/cpuset", "cgroups/devices", "cgroups/hugetlb",
		"cgroups/mem", "cgroups/net_cls", "cgroups/net_prio", "cgroups/perf_event", "cgroups/pids", "appc/runtime", "docker/runtime",
		"docker/volume", "environment_secret", "gpu/nvidia", "linux/capabilities", "linux/devices", "linux/nnp", "linux/seccomp",
		"namespaces/ipc", "namespaces/pid", "network/cni", "network/port_mapping", "network/ports", "volume/csi", "volume/host_path",
		"volume/image", "volume/sandbox_path", "volume/secret",
	}
	// lackingIsolators are those that would isolate more than is done here, with what there is in their place: to go on as if
	// they were there would be worse than not to start.
	lackingIsolators = map[string]string{
		"filesystem/shared":    "filesystem/linux",
		"disk/xfs":             "disk/du with --enforce-container-disk-quota",
		"network/port_mapping": "a network of the container's own, see --network-name",
		"appc/runtime":         "docker/runtime",
	}
)

// check tells all that is wrong with the settings.
func (c *containerFlags) check() error {
	var faults []error
	fault := func(flag, format string, args ...any) {
		faults = append(faults, fmt.Errorf("--%s: "+format, append([]any{flag}, args...)...))
	}
	seen := map[string]bool{}
	for _, name := range c.containerizers {
		switch {
		case !slices.Contains(knownContainerizers, name):
			fault("containerizers", "unknown containerizer %q%s (there are %s)", name, didYouMean(name, knownContainerizers), strings.Join(knownContainerizers, ", "))
		case seen[name]:
			fault("containerizers", "%q is named twice", name)
		}
		seen[name] = true
	}
	if len(c.containerizers) == 0 {
		fault("containerizers", "none is named (there are %s)", strings.Join(knownContainerizers, ", "))
	}
	for _, name := range c.isolation {
		if !slices.Contains(knownIsolators, name) {
			fault("isolation", "unknown isolator %q%s", name, didYouMean(name, knownIsolators))
		}
		if instead, lacks := lackingIsolators[name]; lacks {
			fault("isolation", "%q is not built in; there is %s", name, instead)
		}
	}
	if !filepath.IsAbs(c.sandboxDirectory) || filepath.Clean(c.sandboxDirectory) == "/" {
		fault("sandbox-directory", "%q is not the absolute path of a folder below /", c.sandboxDirectory)
	}
	for _, p := range c.allowedHostPaths {
		if !filepath.IsAbs(p) {
			fault("allowed-host-paths", "%q is not an absolute path", p)
		}
	}
	for _, p := range c.images.providers {
		if p != "docker" {
			fault("image-providers", "unknown provider %q (there is docker)", p)
		}
	}
	if !slices.Contains([]string{"", "overlay", "copy"}, c.images.backend) {
		fault("image-provisioner-backend", "unknown backend %q%s (overlay, copy)", c.images.backend, didYouMean(c.images.backend, []string{"overlay", "copy"}))
	}
	if _, err := c.gpuDevices(); err != nil {
		fault("nvidia-gpu-devices", "%v", err)
	}
	if c.reregister.Std() > 15*time.Second {
		fault("executor-reregistration-timeout", "%v is more than 15s", c.reregister.Std())
	}
	if c.logFiles < 1 || c.logFiles > 1000 {
		fault("container-log-files", "%d is not between 1 and 1000", c.logFiles)
	}
	if c.keepExecutors < 0 {
		fault("max-completed-executors-per-framework", "%d is negative", c.keepExecutors)
	}
	if c.pidsLimit < 0 {
		fault("cgroups-pids-limit", "%d is negative", c.pidsLimit)
	}
	for _, d := range []struct {
		flag     string
		d        flags.Duration
		positive bool
	}{
		{"docker-remove-delay", c.docker.removeDelay, false},
		{"docker-stop-timeout", c.docker.stopTimeout, false},
		{"docker-pull-timeout", c.docker.pullTimeout, true},
		{"docker-store-gc-age", c.images.gcAge, true},
		{"fetcher-stall-timeout", c.fetcher.stall, true},
		{"fetcher-timeout", c.fetcher.timeout, true},
		{"executor-registration-timeout", c.registration, true},
		{"executor-reregistration-timeout", c.reregister, true},
		{"recovery-timeout", c.recovery, true},
		{"container-disk-watch-interval", c.diskQuotaInterval, true},
		{"disk-watch-interval", c.gcEvery, true},
	} {
		if d.d < 0 || d.positive && d.d == 0 {
			fault(d.flag, "%v is too short", d.d.Std())
		}
	}
	return errors.Join(faults...)
}

func didYouMean(name string, known []string) string {
	if near := flags.Nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

func (c *containerFlags) gpuDevices() ([]int, error) {
	var out []int
	for _, s := range c.gpus {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is not the number of a device", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// isolates tells whether an isolator is among those of --isolation.
func (c *containerFlags) isolates(name string) bool { return slices.Contains(c.isolation, name) }

// inline returns a value that is given as it is, or as the absolute path of the file that holds it.
func inline(value string) ([]byte, error) {
	if strings.HasPrefix(value, "/") {
		return os.ReadFile(value)
	}
	return []byte(value), nil
}

// secretFlag is a text that is shown to nobody.
type secretFlag string

// String hides it.
func (s *secretFlag) String() string {
	if *s == "" {
		return ""
	}
	return "***"
}

// Set takes it.
func (s *secretFlag) Set(text string) error { *s = secretFlag(text); return nil }

// Secret keeps it out of what is said about wrong values.
func (s *secretFlag) Secret() bool { return true }

// environmentFlag is a set of variables.
type environmentFlag map[string]string

// String writes JSON.
func (e *environmentFlag) String() string {
	if len(*e) == 0 {
		return ""
	}
	text, _ := json.Marshal(map[string]string(*e)) // strings always do
	return string(text)
}

// Set parses a JSON object whose values are text, in place or in the file of an absolute path.
func (e *environmentFlag) Set(text string) error {
	data, err := inline(text)
	if err != nil {
		return err
	}
	vars := map[string]string{}
	if err := json.Unmarshal(data, &vars); err != nil {
		return errors.New("not a JSON object of names and texts")
	}
	for name, value := range vars {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("%q cannot be a variable", name)
		}
	}
	*e = vars
	return nil
}

// containerInfoFlag is a ContainerInfo.
type containerInfoFlag struct {
	info *mesos.ContainerInfo
	text string
}

// String returns what was given.
func (c *containerInfoFlag) String() string { return c.text }

// Set parses JSON, in place or in the file of an absolute path.
func (c *containerInfoFlag) Set(text string) error {
	data, err := inline(text)
	if err != nil {
		return err
	}
	info := &mesos.ContainerInfo{}
	if err := codec.JSON.Unmarshal(data, info); err != nil {
		return err
	}
	c.info, c.text = info, text
	return nil
}
