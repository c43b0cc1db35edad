package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/network/resolv"
	"starling/master/mesos"
	"starling/master/mesos/codec"
)

// subset tells what of want got does not have.
func subset(at string, want, got any) []string {
	w, ok := want.(map[string]any)
	if !ok {
		if !reflect.DeepEqual(want, got) {
			return []string{fmt.Sprintf("%s: got %v, want %v", at, got, want)}
		}
		return nil
	}
	g, _ := got.(map[string]any)
	var faults []string
	for k, v := range w {
		faults = append(faults, subset(at+"."+k, v, g[k])...)
	}
	return faults
}

// dockerVolume is a container with a volume of the engine's own driver with these options.
func dockerVolume(options string) string {
	var text map[string]string
	if err := json.Unmarshal([]byte("{"+options+"}"), &text); err != nil {
		panic(err)
	}
	var parameters []map[string]string
	for key, value := range text {
		parameters = append(parameters, map[string]string{"key": key, "value": value})
	}
	data, _ := json.Marshal(parameters)
	return `{"volumes":[{"container_path":"/v","mode":"RW","source":{"type":"DOCKER_VOLUME","docker_volume":{"name":"vol","driver":"local","driver_options":{"parameter":` + string(data) + `}}}}]}`
}

// nameServers are set for some networks.
func nameServers(c *Config) {
	var err error
	c.DNS, err = resolv.ParseDefaults(`{"docker": [
		{"network_mode": "BRIDGE", "dns": {"nameservers": ["10.0.0.1"], "search": ["bridged"], "options": ["ndots:1"]}},
		{"network_mode": "USER", "network_name": "blue", "dns": {"nameservers": ["10.0.0.2"]}}]}`)
	if err != nil {
		panic(err)
	}
}

// TestRequests compares what the engine is asked for with what `docker run` would ask for.
func TestRequests(t *testing.T) {
	f := newFakeEngine(t)
	f.have["img:1"] = true
	dir := t.TempDir()
	cfg := Config{AgentID: "agent-1", Dir: filepath.Join(dir, "docker"), Host: "unix://" + f.socket, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for i, tt := range []struct {
		name      string
		container string // ContainerInfo, where "docker" may lack the image
		command   string // CommandInfo
		spec      func(*containerizer.Spec)
		config    func(*Config)
		want      string
		err       string
	}{
		{
			name: "nothing asked for", want: `{"Image":"img:1","Cmd":null,"Entrypoint":null,"User":"","Tty":false,"OpenStdin":false,
				"Labels":{"starling.agent":"agent-1","starling.container":"ID","starling.note":"bm90ZQ=="},
				"Env":["A=1","MESOS_SANDBOX=/mnt/mesos/sandbox","MESOS_CONTAINER_NAME=mesos-ID"],
				"HostConfig":{"NetworkMode":"host","Privileged":false,"Binds":["DIR:/mnt/mesos/sandbox:rw"],"CpuShares":0,"CpuQuota":0,"Memory":0,
				"RestartPolicy":{"Name":"","MaximumRetryCount":0},"AutoRemove":false,"PidMode":"","IpcMode":"","CapAdd":null,"Mounts":null}}`,
		},
		{name: "shell", command: `{"value":"echo $HOME"}`, want: `{"Entrypoint":["/bin/sh"],"Cmd":["-c","echo $HOME"]}`},
		{name: "program", command: `{"shell":false,"value":"ls","arguments":["-l","/"]}`, want: `{"Entrypoint":null,"Cmd":["ls","-l","/"]}`},
		{name: "arguments of the image's program", command: `{"shell":false,"arguments":["-v"]}`, want: `{"Entrypoint":null,"Cmd":["-v"]}`},
		{
			name: "entry point of a parameter", command: `{"shell":false,"arguments":["-v"]}`,
			container: `{"docker":{"parameters":[{"key":"entrypoint","value":"/e"}]}}`, want: `{"Entrypoint":["/e"],"Cmd":["-v"]}`,
		},
		{
			name: "limits", spec: func(s *containerizer.Spec) { s.Limits = containerizer.Limits{CPUs: 0.5, MemBytes: 64 << 20} },
			want: `{"HostConfig":{"CpuShares":512,"CpuQuota":0,"Memory":67108864,"MemoryReservation":0,"MemorySwap":0}}`,
		},
		{
			name: "least limits", spec: func(s *containerizer.Spec) {
				s.Limits = containerizer.Limits{CPUs: 0.001, CPULimit: 0.001, MemBytes: 1 << 20}
			},
			want: `{"HostConfig":{"CpuShares":2,"CpuQuota":1000,"Memory":33554432}}`,
		},
		{
			name: "limits beyond the request", spec: func(s *containerizer.Spec) {
				s.Limits = containerizer.Limits{CPUs: 1, CPULimit: 2, MemBytes: 64 << 20, MemLimit: 128 << 20}
			},
			want: `{"HostConfig":{"CpuShares":1024,"CpuQuota":200000,"Memory":134217728,"MemoryReservation":67108864}}`,
		},
		{
			name: "no limits", config: func(c *Config) { c.CPUQuota = true }, spec: func(s *containerizer.Spec) {
				s.Limits = containerizer.Limits{CPUs: 1, CPULimit: containerizer.Unlimited, MemBytes: 64 << 20, MemLimit: containerizer.Unlimited}
			},
			want: `{"HostConfig":{"CpuShares":1024,"CpuQuota":0,"Memory":0,"MemoryReservation":67108864}}`,
		},
		{
			name: "quota and swap by configuration", config: func(c *Config) { c.CPUQuota, c.LimitSwap = true, true },
			spec: func(s *containerizer.Spec) { s.Limits = containerizer.Limits{CPUs: 1.5, MemBytes: 64 << 20} },
			want: `{"HostConfig":{"CpuShares":1536,"CpuQuota":150000,"Memory":67108864,"MemorySwap":67108864}}`,
		},
		{
			name:      "bridge with ports",
			container: `{"hostname":"web","docker":{"network":"BRIDGE","privileged":true,"port_mappings":[{"host_port":31000,"container_port":80},{"host_port":31001,"container_port":53,"protocol":"UDP"}]}}`,
			want: `{"Hostname":"web","ExposedPorts":{"80/tcp":{},"53/udp":{}},"HostConfig":{"NetworkMode":"bridge","Privileged":true,
				"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"31000"}],"53/udp":[{"HostIp":"","HostPort":"31001"}]}}}`,
		},
		{name: "network of the user's", container: `{"network_infos":[{"name":"blue"}],"docker":{"network":"USER"}}`, want: `{"HostConfig":{"NetworkMode":"blue"}}`},
		{name: "no network", container: `{"docker":{"network":"NONE"}}`, want: `{"HostConfig":{"NetworkMode":"none"}}`},
		{
			name:      "network by parameter",
			container: `{"docker":{"parameters":[{"key":"network","value":"blue"},{"key":"network-alias","value":"a"},{"key":"ip","value":"10.1.1.1"}]}}`,
			want:      `{"HostConfig":{"NetworkMode":"blue"},"NetworkingConfig":{"EndpointsConfig":{"blue":{"Aliases":["a"],"IPAMConfig":{"IPv4Address":"10.1.1.1"}}}}}`,
		},
		{
			name: "volumes", container: `{"volumes":[
				{"container_path":"/a","host_path":"/srv/a","mode":"RO"},{"container_path":"b","host_path":"/srv/b","mode":"RW"},
				{"container_path":"/c","host_path":"c/d","mode":"RW"},{"container_path":"/anon","mode":"RW"},
				{"container_path":"/v","mode":"RW","source":{"type":"DOCKER_VOLUME","docker_volume":{"name":"vol","driver":"drv","driver_options":{"parameter":[{"key":"k","value":"v"}]}}}},
				{"container_path":"/p","mode":"RW","source":{"type":"HOST_PATH","host_path":{"path":"/srv/p","mount_propagation":{"mode":"BIDIRECTIONAL"}}}}]}`,
			spec: func(s *containerizer.Spec) {
				s.Mounts = []containerizer.Mount{{Source: "/srv/volume", Target: "data", ReadOnly: true}}
			},
			want: `{"Volumes":{"/anon":{}},"HostConfig":{
				"Binds":["/srv/a:/a:ro","/srv/b:/mnt/mesos/sandbox/b:rw","/srv/p:/p:rw,rshared","DIR:/mnt/mesos/sandbox:rw","DIR/c/d:/c:rw","/srv/volume:/mnt/mesos/sandbox/data:ro"],
				"Mounts":[{"Type":"volume","Source":"vol","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"drv","Options":{"k":"v"}}}}]}}`,
		},
		{
			name: "volume of a driver", container: `{"volumes":[{"container_path":"/a","host_path":"name","mode":"RW"}],"docker":{"volume_driver":"drv"}}`,
			want: `{"HostConfig":{"VolumeDriver":"drv","Binds":["name:/a:rw","DIR:/mnt/mesos/sandbox:rw"]}}`,
		},
		{name: "terminal", container: `{"tty_info":{}}`, want: `{"Tty":true,"OpenStdin":true}`},
		{
			name: "devices and rlimits", container: `{"rlimit_info":{"rlimits":[{"type":"RLMT_NOFILE","soft":100,"hard":200},{"type":"RLMT_CORE"}]}}`,
			spec: func(s *containerizer.Spec) { s.Devices = []string{"/dev/nvidia0"} },
			want: `{"HostConfig":{"Devices":[{"PathOnHost":"/dev/nvidia0","PathInContainer":"/dev/nvidia0","CgroupPermissions":"rwm"}],
				"Ulimits":[{"Name":"nofile","Soft":100,"Hard":200},{"Name":"core","Soft":-1,"Hard":-1}]}}`,
		},
		{
			name: "parameters", container: `{"docker":{"network":"BRIDGE","parameters":[
				{"key":"env","value":"A=2"},{"key":"e","value":"B=x=y"},{"key":"label","value":"team=blue"},{"key":"add-host","value":"db:10.0.0.1"},
				{"key":"cap-add","value":"NET_ADMIN"},{"key":"cap-drop","value":"MKNOD"},{"key":"dns","value":"10.0.0.2"},{"key":"dns-search","value":"x.y"},
				{"key":"dns-opt","value":"ndots:1"},{"key":"device","value":"/dev/fuse:/dev/f:rw"},{"key":"hostname","value":"h"},{"key":"ipc","value":"host"},
				{"key":"log-driver","value":"json-file"},{"key":"log-opt","value":"max-size=1m"},{"key":"memory-swap","value":"-1"},{"key":"pid","value":"host"},
				{"key":"publish","value":"127.0.0.1:31005:90/udp"},{"key":"read-only","value":"true"},{"key":"security-opt","value":"seccomp=unconfined"},
				{"key":"shm-size","value":"64m"},{"key":"sysctl","value":"net.core.somaxconn=9"},{"key":"tmpfs","value":"/run:size=1m"},
				{"key":"ulimit","value":"nofile=10:20"},{"key":"user","value":"nobody"},{"key":"volume","value":"/srv/x:/x:ro"},{"key":"volumes-from","value":"other"},
				{"key":"workdir","value":"/w"},{"key":"init","value":"true"},{"key":"oom-score-adj","value":"5"},{"key":"pids-limit","value":"7"},
				{"key":"stop-signal","value":"INT"},{"key":"memory","value":"1g"},{"key":"cpu-shares","value":"9"},{"key":"group-add","value":"5"},
				{"key":"restart","value":"no"},{"key":"mac-address","value":"02:00:00:00:00:01"},{"key":"expose","value":"91"},{"key":"storage-opt","value":"size=1G"},
				{"key":"userns","value":"host"},{"key":"uts","value":"host"},{"key":"link","value":"db:db"},{"key":"cpuset-cpus","value":"0"}]}}`,
			want: `{"Env":["A=2","MESOS_SANDBOX=/mnt/mesos/sandbox","MESOS_CONTAINER_NAME=mesos-ID","B=x=y"],"Labels":{"team":"blue"},"Hostname":"h","User":"nobody",
				"WorkingDir":"/w","StopSignal":"INT","MacAddress":"02:00:00:00:00:01","ExposedPorts":{"90/udp":{},"91/tcp":{}},"HostConfig":{"ExtraHosts":["db:10.0.0.1"],
				"CapAdd":["CAP_NET_ADMIN"],"CapDrop":["CAP_MKNOD"],"Dns":["10.0.0.2"],"DnsSearch":["x.y"],"DnsOptions":["ndots:1"],
				"Devices":[{"PathOnHost":"/dev/fuse","PathInContainer":"/dev/f","CgroupPermissions":"rw"}],"IpcMode":"host","PidMode":"host","UsernsMode":"host","UTSMode":"host",
				"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"MemorySwap":-1,"PortBindings":{"90/udp":[{"HostIp":"127.0.0.1","HostPort":"31005"}]},
				"ReadonlyRootfs":true,"SecurityOpt":["seccomp=unconfined"],"ShmSize":67108864,"Sysctls":{"net.core.somaxconn":"9"},"Tmpfs":{"/run":"size=1m"},
				"Ulimits":[{"Name":"nofile","Soft":10,"Hard":20}],"Binds":["/srv/x:/x:ro","DIR:/mnt/mesos/sandbox:rw"],"VolumesFrom":["other"],"Init":true,"OomScoreAdj":5,
				"PidsLimit":7,"Memory":1073741824,"CpuShares":9,"GroupAdd":["5"],"StorageOpt":{"size":"1G"},"Links":["db:db"],"CpusetCpus":"0"}}`,
		},
		{
			name: "within another", container: `{}`, spec: func(s *containerizer.Spec) { s.Parent, s.Container = "outer", nil },
			err: "containers of Docker cannot have others within",
		},
		{name: "unknown parameter", container: `{"docker":{"parameters":[{"key":"colour","value":"green"}]}}`, err: `Docker parameter "colour" with value "green": there is no such parameter, or it is not supported`},
		{name: "restart policy", container: `{"docker":{"parameters":[{"key":"restart","value":"always"}]}}`, err: "its framework starts another one"},
		{name: "removal", container: `{"docker":{"parameters":[{"key":"rm","value":"true"}]}}`, err: "the agent removes containers"},
		{name: "name", container: `{"docker":{"parameters":[{"key":"name","value":"x"}]}}`, err: "the agent names containers"},
		{name: "bad size", container: `{"docker":{"parameters":[{"key":"shm-size","value":"big"}]}}`, err: "not a size like 512m"},
		{name: "our labels", container: `{"docker":{"parameters":[{"key":"label","value":"starling.owner=me"}]}}`, err: "the agent's own"},
		{name: "where our outputs go", container: `{"docker":{"parameters":[{"key":"l","value":"starling.stdout=/etc/cron.d/x"}]}}`, err: "the agent's own"},
		{name: "host name by a parameter in the node's network", container: `{"docker":{"parameters":[{"key":"hostname","value":"x"}]}}`, want: `{"Hostname":"x","HostConfig":{"NetworkMode":"host"}}`},
		{name: "host name in the node's network", container: `{"hostname":"x"}`, err: "cannot have a hostname of its own"},
		{name: "ports in the node's network", container: `{"docker":{"port_mappings":[{"host_port":1,"container_port":1}]}}`, err: "Port mappings are only supported for bridge and user-defined networks"},
		{name: "unknown protocol", container: `{"docker":{"network":"BRIDGE","port_mappings":[{"host_port":1,"container_port":1,"protocol":"icmp"}]}}`, err: `unknown protocol "icmp"`},
		{name: "user network without a name", container: `{"docker":{"network":"USER"}}`, err: "exactly one network info"},
		{name: "two networks", container: `{"network_infos":[{"name":"a"},{"name":"b"}],"docker":{"network":"USER"}}`, err: "exactly one network info"},
		{name: "out of the sandbox", container: `{"volumes":[{"container_path":"/a","host_path":"../x","mode":"RW"}]}`, err: "leads out of the sandbox"},
		{name: "out of the sandbox by a link", container: `{"volumes":[{"container_path":"/a","host_path":"link/x","mode":"RW"}]}`, err: "sandbox"},
		{name: "engine's socket", container: `{"volumes":[{"container_path":"/a","host_path":"SOCKET","mode":"RO"}]}`, err: "is not allowed: who has the socket"},
		{name: "folder of the engine's socket", container: `{"volumes":[{"container_path":"/a","host_path":"FOLDER","mode":"RO"}]}`, err: "is not allowed: who has the socket"},
		{name: "folder above the engine's socket", container: `{"docker":{"parameters":[{"key":"volume","value":"/:/a:ro"}]}}`, err: "is not allowed: who has the socket"},
		{
			name: "folder above the engine's socket that the operator named", config: func(c *Config) { c.AllowedHostPaths = []string{"/"} },
			container: `{"docker":{"parameters":[{"key":"volume","value":"/:/a:ro"}]}}`, want: `{"HostConfig":{"Binds":["/:/a:ro","DIR:/mnt/mesos/sandbox:rw"]}}`,
		},
		{
			name: "engine's socket where the operator named all", config: func(c *Config) { c.AllowedHostPaths = []string{"/"} },
			container: `{"volumes":[{"container_path":"/a","host_path":"SOCKET","mode":"RO"}]}`, err: "is not allowed: who has the socket",
		},
		{name: "volume that is the folder of the engine's socket", container: dockerVolume(`"type":"nfs","o":"addr=x,bind","device":"FOLDER"`), err: "is not allowed: who has the socket"},
		{name: "volume that is a folder from somewhere", container: dockerVolume(`"type":"none","o":"bind","device":"run"`), err: `"run" is not an absolute path`},
		{name: "volume of before that is the folder of the engine's socket", container: `{"docker":{"parameters":[{"key":"volume","value":"root:/a"}]}}`, err: "is not allowed: who has the socket"},
		{
			name: "name servers of the bridge", config: nameServers, container: `{"docker":{"network":"BRIDGE"}}`,
			want: `{"HostConfig":{"Dns":["10.0.0.1"],"DnsSearch":["bridged"],"DnsOptions":["ndots:1"]}}`,
		},
		{
			name: "name servers of a network", config: nameServers, container: `{"docker":{"network":"BRIDGE","parameters":[{"key":"network","value":"blue"}]}}`,
			want: `{"HostConfig":{"Dns":["10.0.0.2"],"DnsSearch":null}}`,
		},
		{
			name: "name servers of the task", config: nameServers, container: `{"docker":{"network":"BRIDGE","parameters":[{"key":"dns","value":"9.9.9.9"}]}}`,
			want: `{"HostConfig":{"Dns":["9.9.9.9"],"DnsSearch":null,"DnsOptions":null}}`,
		},
		{name: "name servers of other networks", config: nameServers, want: `{"HostConfig":{"Dns":null}}`},
		{name: "colon in a path", container: `{"volumes":[{"container_path":"/a:b","host_path":"/x","mode":"RO"}]}`, err: "contains a colon"},
		{name: "secret", container: `{"volumes":[{"container_path":"/a","mode":"RO","source":{"type":"SECRET"}}]}`, err: "SECRET are not supported by Docker"},
		{name: "capabilities of the other kind", container: `{"linux_info":{"share_pid_namespace":true}}`, err: "linux_info is for containers of type MESOS"},
		{
			name: "folders not allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: `{"volumes":[{"container_path":"/a","host_path":"/srv/allowed/../a","mode":"RW"}]}`, err: "on this node only what is in /srv/allowed",
		},
		{
			name: "folders allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: `{"volumes":[{"container_path":"/a","host_path":"/srv/allowed/a","mode":"RW"},{"container_path":"/b","host_path":"b","mode":"RW"}]}`,
			want:      `{"HostConfig":{"Binds":["/srv/allowed/a:/a:rw","DIR:/mnt/mesos/sandbox:rw","DIR/b:/b:rw"]}}`,
		},
		{
			name: "volumes that are folders not allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: dockerVolume(`"type":"none","o":"bind","device":"/srv/a"`), err: "on this node only what is in /srv/allowed",
		},
		{
			name: "volumes over folders not allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: dockerVolume(`"type":"overlay","o":"lowerdir=/etc","device":"overlay"`), err: `a volume of type "overlay" may hold anything`,
		},
		{
			name: "volumes of before not allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: `{"volumes":[{"container_path":"/v","mode":"RW","source":{"type":"DOCKER_VOLUME","docker_volume":{"name":"root"}}}]}`, err: "is not allowed",
		},
		{
			name: "volumes of others not allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: `{"docker":{"parameters":[{"key":"volumes-from","value":"other"}]}}`, err: "volumes-from=other is not allowed",
		},
		{
			name: "volumes allowed", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: dockerVolume(`"type":"none","o":"bind","device":"/srv/allowed/a"`),
			want:      `{"HostConfig":{"Mounts":[{"Type":"volume","Source":"vol","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/srv/allowed/a"}}}}]}}`,
		},
		{
			name: "volumes of other machines", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: dockerVolume(`"type":"nfs","o":"addr=10.0.0.1","device":":/export"`),
			want:      `{"HostConfig":{"Mounts":[{"Type":"volume","Source":"vol","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"nfs","o":"addr=10.0.0.1","device":":/export"}}}}]}}`,
		},
		{
			name: "volumes of the engine's", config: func(c *Config) { c.AllowedHostPaths = []string{"/srv/allowed"} },
			container: `{"docker":{"parameters":[{"key":"volume","value":"plain:/a"},{"key":"volume","value":"new:/b"}]}}`,
			want:      `{"HostConfig":{"Binds":["plain:/a","new:/b","DIR:/mnt/mesos/sandbox:rw"]}}`,
		},
		{name: "rights not allowed", config: func(c *Config) { c.ForbidPrivileged = true }, container: `{"docker":{"privileged":true}}`, err: "privileged is not allowed on this node"},
		{
			name: "capabilities not allowed", config: func(c *Config) { c.ForbidPrivileged = true },
			container: `{"docker":{"parameters":[{"key":"cap-add","value":"ALL"}]}}`, err: "cap-add=ALL is not allowed on this node",
		},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			id := fmt.Sprint("c", i)
			sandbox := filepath.Join(dir, id)
			if err := os.Mkdir(sandbox, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/etc", sandbox+"/link"); err != nil {
				t.Fatal(err)
			}
			container := strings.NewReplacer("SOCKET", f.socket, "FOLDER", filepath.Dir(f.socket)).Replace(tt.container)
			if container == "" {
				container = "{}"
			}
			var info mesos.ContainerInfo
			text := map[string]any{}
			if err := json.Unmarshal([]byte(container), &text); err != nil {
				t.Fatal(err)
			}
			text["type"] = "DOCKER"
			d, _ := text["docker"].(map[string]any)
			if d == nil {
				d = map[string]any{}
			}
			d["image"], text["docker"] = "img:1", d
			data, _ := json.Marshal(text)
			if err := codec.JSON.Unmarshal(data, &info); err != nil {
				t.Fatal(err)
			}
			spec := containerizer.Spec{
				ID: id, Dir: sandbox, Container: &info, Env: []string{"A=1"}, Note: []byte("note"),
				Stdout: sandbox + "/stdout", Stderr: sandbox + "/stderr",
			}
			if tt.command != "" {
				spec.Command = &mesos.CommandInfo{}
				if err := codec.JSON.Unmarshal([]byte(tt.command), spec.Command); err != nil {
					t.Fatal(err)
				}
			}
			if tt.spec != nil {
				tt.spec(&spec)
			}
			c.cfg = cfg
			c.cfg.SandboxDirectory, c.cfg.PullStall, c.cfg.PullTimeout = "/mnt/mesos/sandbox", time.Minute, time.Minute
			if tt.config != nil {
				tt.config(&c.cfg)
			}
			before := proto.Clone(&info)
			_, err := c.Launch(t.Context(), spec)
			if !proto.Equal(before, &info) {
				t.Error("the spec was changed")
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var want map[string]any
			if err := json.Unmarshal([]byte(strings.NewReplacer("ID", id, "DIR", sandbox).Replace(tt.want)), &want); err != nil {
				t.Fatal(err)
			}
			f.mu.Lock()
			got := f.created["mesos-"+id]
			f.mu.Unlock()
			for _, fault := range subset("", want, any(got)) {
				t.Error(fault)
			}
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if strings.Contains(r, "/archive") || strings.Contains(r, "/copy") || strings.Contains(r, "/export") {
			t.Errorf("the engine's files of containers are touched: %s", r)
		}
	}
	for name, body := range f.created {
		if data, _ := json.Marshal(body); strings.Contains(string(data), f.socket) {
			t.Errorf("%s is given the engine's socket", name)
		}
	}
}

func TestPullsOnlyWhatLacks(t *testing.T) {
	f := newFakeEngine(t)
	dir := t.TempDir()
	auth, err := ParseAuth([]byte(`{"auths":{"https://reg.example:5000/v2/":{"auth":"dXNlcjpwYXNz"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{AgentID: "a", Dir: filepath.Join(dir, "docker"), Host: f.socket, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pulls := func() (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, r := range f.requests {
			if r == "POST /images/create" {
				n++
			}
		}
		return n
	}
	launch := func(id, image string, force bool) {
		t.Helper()
		spec := containerizer.Spec{ID: id, Dir: dir, Container: &mesos.ContainerInfo{
			Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: &image, ForcePullImage: &force},
		}}
		if _, err := c.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	launch("1", "reg.example:5000/x/y:1", false)
	if f.auth == "" || pulls() != 1 {
		t.Errorf("pulled %d times with credentials %q", pulls(), f.auth)
	}
	launch("2", "reg.example:5000/x/y:1", false)
	if pulls() != 1 {
		t.Error("what is there is pulled again")
	}
	launch("3", "reg.example:5000/x/y:1", true)
	if pulls() != 2 {
		t.Error("force_pull_image does not pull")
	}
	launch("4", "other/y", false)
	if !f.have["docker.io/other/y:latest"] && !f.have["other/y:latest"] {
		t.Errorf("got %v, want the tag latest alone", f.have)
	}
	numbers := map[string]float64{}
	containerizer.NewComposite(containerizer.Part{Name: "docker", Containerizer: c}).Measure(numbers)
	if got := numbers["containerizer/docker/image_pull_ms/count"]; got != 3 || numbers["containerizer/docker/image_pull_ms"] <= 0 {
		t.Errorf("after three pulls: %v", numbers)
	}
	if plain := f.auth; plain != "" && plain != "e30=" {
		t.Errorf("the credentials of one registry go to another: %q", plain)
	}
}

func TestParseAuth(t *testing.T) {
	for text, want := range map[string]Auth{
		`{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"}}}`: {"docker.io": {Username: "user", Password: "pass", Server: "https://index.docker.io/v1/"}},
		`{"reg:5000":{"auth":"dXNlcjpwYTpzcw==","email":"x"}}`:              {"reg:5000": {Username: "user", Password: "pa:ss", Server: "reg:5000"}},
		`{"auths":{"r.io":{"identitytoken":"tok"},"s.io":{}}}`:              {"r.io": {IdentityToken: "tok", Server: "r.io"}},
		`{}`: {},
	} {
		got, err := ParseAuth([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{`x`, `{"auths":{"r.io":{"auth":"!"}}}`, `{"auths":{"r.io":{"auth":"dXNlcg=="}}}`, `{"credsStore":"pass"}`} {
		if got, err := ParseAuth([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want an error", text, got)
		}
	}
	for image, want := range map[string]string{
		"busybox": "docker.io", "me/app:1": "docker.io", "localhost/x": "localhost", "reg:5000/a/b": "reg:5000", "q.io/a@sha256:1": "q.io",
	} {
		if got := registryOf(image); got != want {
			t.Errorf("registry of %s: got %s, want %s", image, got, want)
		}
	}
	for image, want := range map[string]string{
		"a": "a:latest", "a:1": "a:1", "reg:5000/a": "reg:5000/a:latest", "a@sha256:1": "a@sha256:1", "reg:5000/a:2": "reg:5000/a:2",
	} {
		if got := withTag(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestOnlyALocalSocketOrTLS(t *testing.T) {
	t.Setenv("DOCKER_CERT_PATH", "")
	for host, want := range map[string]string{
		"/run/x.sock": "", "unix:///run/x.sock": "", "tcp://10.0.0.1:2375": "only a local socket", "ssh://x": "only unix:// and tcp://", "nonsense": "address of the Docker engine",
	} {
		_, err := New(Config{Dir: t.TempDir(), Host: host})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", host, err, want)
		}
	}
	t.Setenv("DOCKER_HOST", "unix:///run/other.sock")
	c, err := New(Config{Dir: t.TempDir()})
	if err != nil || c.socket != "/run/other.sock" {
		t.Errorf("DOCKER_HOST does not count: %v", err)
	}
}

// TestWhyTheEngineIsAway has people told what to look for.
func TestWhyTheEngineIsAway(t *testing.T) {
	dir := t.TempDir()
	refused, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/refused"})
	if err != nil {
		t.Fatal(err)
	}
	refused.SetUnlinkOnClose(false)
	refused.Close()
	hangs, err := net.Listen("unix", dir+"/hangs")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	for name, want := range map[string]string{
		"lacks":   "cannot reach the Docker engine at unix://" + dir + "/lacks: no such file or directory",
		"refused": "cannot reach the Docker engine at unix://" + dir + "/refused: connection refused",
		"hangs":   "the Docker engine at unix://" + dir + "/hangs does not answer in time",
	} {
		engine, err := dial(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		within := time.Minute
		if name == "hangs" {
			within = 100 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		if err := engine.Start(ctx, "x"); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		} else if name == "hangs" && !errors.Is(err, context.DeadlineExceeded) {
			t.Error("the deadline does not show")
		}
		cancel()
		engine.Close()
	}
}
