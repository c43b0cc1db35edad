package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// shellExecutor is an executor for which the shell of a container will do: it tells of each task that it runs and is finished,
// unless its name says that it stays. Told to shut down, it ends with status 7.
const shellExecutor = `
me="\"framework_id\":{\"value\":\"$MESOS_FRAMEWORK_ID\"},\"executor_id\":{\"value\":\"$MESOS_EXECUTOR_ID\"}"
call() {
	wget -q -O - --header 'Content-Type: application/json' --header 'Accept: application/json' --post-data "{$me,$1}" http://$MESOS_AGENT_ENDPOINT/api/v1/executor
}
update() {
	call '"type":"UPDATE","update":{"status":{"task_id":{"value":"'$1'"},"state":"'$2'","source":"SOURCE_EXECUTOR","uuid":"'$(head -c 16 /dev/urandom | base64)'"}}'
}
trap 'exit 7' TERM
while :; do
	call '"type":"SUBSCRIBE","subscribe":{}' | while read length; do
		event=$(dd bs=1 count=$length 2>/dev/null)
		case "$event" in
		*'"type":"LAUNCH"'*)
			task=$(echo "$event" | sed 's/.*"task_id":{"value":"\([^"]*\)".*/\1/')
			echo "$task" >>$MESOS_SANDBOX/launched
			update $task TASK_RUNNING
			case "$task" in *-stays) ;; *) update $task TASK_FINISHED ;; esac ;;
		*'"type":"SHUTDOWN"'*) kill $$ ;;
		esac
	done &
	wait $!
	sleep 0.2
done`

// roles is the rig as frameworks see it, for a part of the test.
func (r *engineRig) roles(t testing.TB) *Roles {
	c := *r.Cluster
	c.t = t
	return &Roles{Cluster: &c, Agents: []*Process{r.agent.Process}, AgentDirs: []string{r.agent.Dir}, agentHealth: []string{r.agent.url("/health")}}
}

// contained are containers with the image, by what runs them.
func contained(kind string) *mesos.ContainerInfo {
	switch kind {
	case "mesos":
		return imaged()
	case "docker":
		return &mesos.ContainerInfo{
			Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String(engineImage)},
		}
	case "mesos in a network":
		c := imaged()
		c.NetworkInfos = []*mesos.NetworkInfo{{Name: proto.String("mesos-bridge")}}
		return c
	default:
		return &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{
			Image: proto.String(engineImage), Network: mesos.ContainerInfo_DockerInfo_BRIDGE.Enum(),
		}}
	}
}

func imaged() *mesos.ContainerInfo {
	return &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{
		Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: proto.String(engineImage)},
	}}}
}

// What frameworks ask of containers that Marathon's apps do not: groups in a network of their own, executors of others, and
// persistent volumes.
func TestContainersOfFrameworks(t *testing.T) {
	r := newEngineRig(t, patientWithExecutors)
	t.Run("group in a network of its own", func(t *testing.T) { groupInANetwork(t, r) })
	for _, kind := range []string{"mesos", "mesos in a network", "docker", "docker on its bridge"} {
		t.Run("executor of others: "+kind, func(t *testing.T) { executorInAContainer(t, r, kind) })
	}
	for _, kind := range []string{"mesos", "docker"} {
		t.Run("persistent volume: "+kind, func(t *testing.T) { volumeInAContainer(t, r, kind) })
	}
}

func groupInANetwork(t *testing.T, r *engineRig) {
	e := r.roles(t).employer(true)
	at := r.agent.Host
	before := at.run("iptables-save")
	if strings.Contains(before, "31001") {
		t.Fatalf("port 31001 is in the rules before: %s", before)
	}
	pod := &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: proto.String("pod")}, Type: mesos.ExecutorInfo_DEFAULT.Enum(),
		Resources: need(t, "cpus:0.1;mem:32;disk:10;ports:[31001-31001]"),
		Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{
			Name:         proto.String("mesos-bridge"),
			PortMappings: []*mesos.NetworkInfo_PortMapping{{HostPort: proto.Uint32(31001), ContainerPort: proto.Uint32(80), Protocol: proto.String("tcp")}},
		}}},
	}
	healthy := func(h *mesos.HealthCheck) *mesos.HealthCheck {
		h.DelaySeconds, h.IntervalSeconds, h.GracePeriodSeconds = proto.Float64(0), proto.Float64(0.5), proto.Float64(30)
		h.ConsecutiveFailures = proto.Uint32(1000) // none is ended: what is looked for is what is told
		return h
	}
	const get = "wget -q -O - http://127.0.0.1:80/"
	members := []*mesos.TaskInfo{
		{
			Name: proto.String("web"), Command: &mesos.CommandInfo{Value: proto.String("echo $MESOS_CONTAINER_IP >index.html; exec busybox httpd -f -p 80")},
			HealthCheck: healthy(&mesos.HealthCheck{Type: mesos.HealthCheck_HTTP.Enum(), Http: &mesos.HealthCheck_HTTPCheckInfo{
				Port: proto.Uint32(80), Path: proto.String("/"),
			}}),
		},
		{
			Name: proto.String("image"), Container: imaged(),
			Command:     &mesos.CommandInfo{Value: proto.String("until " + get + " >$MESOS_SANDBOX/seen; do sleep 0.1; done; echo $MESOS_CONTAINER_IP >$MESOS_SANDBOX/own; exec sleep 1000")},
			HealthCheck: healthy(&mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum(), Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: proto.Uint32(80)}}),
		},
		{
			Name: proto.String("plain"), Command: &mesos.CommandInfo{Value: proto.String("exec sleep 1000")},
			HealthCheck: healthy(&mesos.HealthCheck{
				Type: mesos.HealthCheck_COMMAND.Enum(), Command: &mesos.CommandInfo{Value: proto.String("busybox " + get + " | grep -qx $MESOS_CONTAINER_IP")},
			}),
		},
	}
	e.accept(func(agent *mesos.AgentID) *mesos.Offer_Operation {
		for _, task := range members {
			// What starts a container takes 30 MB of it where it is built with the race detector.
			task.TaskId, task.AgentId, task.Resources = &mesos.TaskID{Value: task.Name}, agent, need(t, "cpus:0.1;mem:128")
		}
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
			Executor: pod, TaskGroup: &mesos.TaskGroupInfo{Tasks: members},
		}}
	})
	pids := map[string]int{}
	address := ""
	for _, task := range members {
		id := task.GetName()
		Eventually(t, 30*time.Second, id+" is healthy", func() error {
			_, last := e.told(id)
			if !last.GetHealthy() {
				var all []string
				for _, other := range members {
					states, last := e.told(other.GetName())
					all = append(all, fmt.Sprintf("%s was %v, the last %v", other.GetName(), states, last))
				}
				return errors.New(strings.Join(all, "; "))
			}
			pids[id] = int(last.GetContainerStatus().GetExecutorPid())
			infos := last.GetContainerStatus().GetNetworkInfos()
			if len(infos) != 1 || len(infos[0].GetIpAddresses()) == 0 || len(infos[0].GetPortMappings()) != 1 || infos[0].GetName() != "mesos-bridge" {
				t.Fatalf("%s: told %v", id, last)
			}
			if got := infos[0].GetIpAddresses()[0].GetIpAddress(); address == "" {
				address = got
			} else if got != address {
				t.Fatalf("%s has address %s, another one %s", id, got, address)
			}
			return nil
		})
	}
	if address == at.Addr || address == "" {
		t.Errorf("the group has address %q", address)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(r.agent.Dir, "slaves", "latest", "frameworks", e.ID(), "executors", "pod", "runs", "latest"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"seen", "own"} { // its health says that the port is open, not that it has been there itself
		Eventually(t, 20*time.Second, "the one with an image has got the address", func() error {
			if text, err := os.ReadFile(filepath.Join(dir, "tasks", "image", name)); err != nil || strings.TrimSpace(string(text)) != address {
				return fmt.Errorf("%s: %q, %v, want %s", name, text, err, address)
			}
			return nil
		})
	}
	mapped := func() {
		t.Helper()
		if _, page, err := r.request("GET", "http://"+at.Addr+":31001/", ""); err != nil || strings.TrimSpace(page) != address {
			t.Errorf("the mapped port: %q, %v", page, err)
		}
	}
	namespace := func(pid int) string {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		return link
	}
	for id, pid := range pids {
		if pid == 0 || namespace(pid) == "" || namespace(pid) != namespace(pids["web"]) {
			t.Errorf("%s is process %d in %q", id, pid, namespace(pid))
		}
	}
	mapped()
	r.agent.Kill()
	mapped()
	r.agent.Restart()
	for id, pid := range pids {
		if gone(pid) {
			t.Errorf("%s has ended with the agent", id)
		}
	}
	mapped()
	// The checks go on: the page is what two of them look for.
	if err := os.Rename(filepath.Join(dir, "tasks", "web", "index.html"), filepath.Join(dir, "tasks", "web", "away")); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"web": false, "plain": false, "image": true} {
		Eventually(t, 20*time.Second, fmt.Sprintf("%s is healthy: %v", id, want), func() error {
			if _, last := e.told(id); last.Healthy == nil || last.GetHealthy() != want {
				return fmt.Errorf("told %v", last)
			}
			return nil
		})
	}
	ended := time.Now()
	cgroup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pids["plain"]))
	e.call(&scheduler.Call{Type: scheduler.Call_SHUTDOWN.Enum(), Shutdown: &scheduler.Call_Shutdown{
		AgentId: e.agent(), ExecutorId: pod.GetExecutorId(),
	}})
	e.failure("pod")
	e.clean()
	Eventually(t, 10*time.Second, "nothing is left of the group", func() error {
		var left []string
		if rules := at.run("iptables-save"); strings.Contains(rules, "31001") || strings.Contains(rules, address) {
			left = append(left, "rules")
		}
		if namespaces, _ := filepath.Glob(filepath.Join(r.agent.Dir, "network", "*", "*net*")); len(namespaces) > 0 {
			left = append(left, namespaces...)
		}
		if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), r.agent.Dir) {
			left = append(left, "mounts")
		}
		if links := at.run("ip", "-o", "link"); strings.Contains(links, "@if") && strings.Contains(links, "master starling0") {
			left = append(left, links)
		}
		for _, m := range regexp.MustCompile(`(?m)^\d+:([^:]*):(/.*starling-.*)$`).FindAllStringSubmatch(string(cgroup), -1) {
			dir := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(m[1], "name="), m[2])
			if _, err := os.Stat(dir); err == nil {
				left = append(left, dir)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	t.Logf("address %s; nothing was left after %v", address, time.Since(ended).Round(time.Millisecond))
}

// executorInAContainer has an executor of others subscribe out of a container, run tasks, outlive the agent and end.
func executorInAContainer(t *testing.T, r *engineRig, kind string) {
	e := r.roles(t).employer(true)
	executor := custom(t, "own", shellExecutor)
	executor.Container = contained(kind)
	executor.Resources = need(t, "cpus:0.2;mem:64;disk:10")
	e.launch(executor, "", "first", "it-stays")
	if last := e.wants("first", "TASK_RUNNING", "TASK_FINISHED"); last.GetExecutorId().GetValue() != "own" {
		t.Errorf("told %v", last)
	}
	last := e.wants("it-stays", "TASK_RUNNING")
	pid := int(last.GetContainerStatus().GetExecutorPid())
	if root, _ := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/passwd", pid)); pid == 0 || !strings.HasPrefix(string(root), "root:x:0:0::/root:/bin/sh\nnobody") {
		t.Errorf("process %d is not in the image: %q", pid, root)
	}
	e.restart()
	e.launch(executor, "", "second")
	e.wants("second", "TASK_RUNNING", "TASK_FINISHED")
	e.wants("it-stays", "TASK_RUNNING")
	if gone(pid) {
		t.Error("the executor has ended")
	}
	e.call(&scheduler.Call{Type: scheduler.Call_SHUTDOWN.Enum(), Shutdown: &scheduler.Call_Shutdown{
		AgentId: e.agent(), ExecutorId: executor.GetExecutorId(),
	}})
	if status := e.failure("own"); status != 7<<8 {
		t.Errorf("the executor ended with %#x", status)
	}
	e.clean()
	Eventually(t, 10*time.Second, "the process is gone", func() error {
		if !gone(pid) {
			return errors.New("it is not")
		}
		if left := r.engine.Containers(); len(left) > 0 {
			return fmt.Errorf("the engine has %v", left)
		}
		return nil
	})
}

// volumeInAContainer has two tasks with an image, one after the other, on a volume.
func volumeInAContainer(t *testing.T, r *engineRig, kind string) {
	f := newStateful(t, r.roles(t))
	disk := &mesos.Resource{
		Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(100)},
		Reservations: []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("web")}},
	}
	volume := proto.CloneOf(disk)
	id := "volume-" + kind
	volume.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: &id},
		Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")},
	}
	// The operator makes the volume, the framework uses it. The offer goes back: the disk of the volume before may become free
	// only now, would do for this one, and a volume without the cpus and the memory of a kept offer is never offered.
	offer := f.offer()
	f.decline(offer)
	operate(t, r, offer.GetAgentId(), "reserve_resources", "resources", disk)
	operate(t, r, offer.GetAgentId(), "create_volumes", "volumes", volume)
	offer = f.offer(volume)
	f.accept(offer, onVolume("writer-"+kind, `cd $MESOS_SANDBOX && echo remembered >data/file`, offer.GetAgentId(), volume, contained(kind)))
	f.state("writer-"+kind, mesos.TaskState_TASK_FINISHED)
	r.agent.Kill()
	r.agent.Restart()
	for i := 0; ; i++ {
		id := fmt.Sprintf("reader-%s-%d", kind, i)
		offer = f.offer(volume)
		f.accept(offer, onVolume(id, `cd $MESOS_SANDBOX && grep remembered data/file && echo more >>data/file`, offer.GetAgentId(), volume, contained(kind)))
		last := f.until("the end of "+id, func(e *scheduler.Event) bool {
			switch st := e.GetUpdate().GetStatus(); st.GetState() {
			case mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_ERROR, mesos.TaskState_TASK_LOST:
				return st.GetTaskId().GetValue() == id
			}
			return false
		}).GetUpdate().GetStatus()
		if last.GetState() == mesos.TaskState_TASK_FINISHED {
			break
		}
		// An offer from before the agent was killed is taken back where the master has noticed that.
		if last.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS || i == 3 {
			t.Fatalf("got %v", last)
		}
	}
	text, err := os.ReadFile(filepath.Join(r.agent.Dir, "volumes", "roles", "web", id, "file"))
	if want := "remembered\nmore\n"; err != nil || string(text) != want {
		t.Errorf("the volume has %q, %v, want %q", text, err, want)
	}
	offer = f.offer(volume)
	f.accept(offer,
		&mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: []*mesos.Resource{volume}}},
		&mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: []*mesos.Resource{disk}}})
	Eventually(t, 20*time.Second, "the volume is gone", func() error {
		if _, err := os.Stat(filepath.Join(r.agent.Dir, "volumes", "roles", "web", id)); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	Eventually(t, 10*time.Second, "no mount is left", func() error {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if n := strings.Count(string(mounts), r.agent.Dir); err == nil && n > 0 {
			err = fmt.Errorf("%d are", n)
		}
		return err
	})
}

// operate is an operation of the operator's.
func operate(t *testing.T, r *engineRig, agent *mesos.AgentID, call, what string, resource *mesos.Resource) {
	t.Helper()
	body := map[string]any{"type": strings.ToUpper(call), call: map[string]any{"agent_id": map[string]any{"value": agent.GetValue()}, what: []any{shown(resource)}}}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, call, func() error {
		_, answer, err := r.request("POST", r.Master+"/api/v1", string(text))
		if err != nil {
			return fmt.Errorf("%w: %s", err, answer)
		}
		return nil
	})
}

// shown is a resource as JSON has it.
func shown(r *mesos.Resource) map[string]any {
	m := map[string]any{
		"name": r.GetName(), "type": r.GetType().String(), "scalar": map[string]any{"value": r.GetScalar().GetValue()},
		"reservations": []any{map[string]any{"type": "DYNAMIC", "role": r.GetReservations()[0].GetRole()}},
	}
	if d := r.GetDisk(); d != nil {
		m["disk"] = map[string]any{
			"persistence": map[string]any{"id": d.GetPersistence().GetId()},
			"volume":      map[string]any{"mode": "RW", "container_path": d.GetVolume().GetContainerPath()},
		}
	}
	return m
}
