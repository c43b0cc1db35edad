package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

func TestHealthChecks(t *testing.T) {
	var healthy atomic.Bool
	healthy.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	_, text, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	w := m.start(nil)
	info := taskInfo(t, "t1", "cpus:1;mem:32")
	info.HealthCheck = &mesos.HealthCheck{
		Type: mesos.HealthCheck_HTTP.Enum(), Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(uint32(port)), Path: proto.String("/")},
		DelaySeconds: proto.Float64(0), IntervalSeconds: proto.Float64(0.05), GracePeriodSeconds: proto.Float64(0), ConsecutiveFailures: proto.Uint32(3),
	}
	w.mustCall(launchCall(frameworkInfo(), info))
	w.wait("healthy", func() bool { p := w.published("t1"); return p.GetHealthy() && p.GetChecked() })
	w.wait("healthy told", func() bool { return len(w.told("t1")) == 3 })
	w.end()

	// A restarted agent goes on checking, and says nothing new while nothing is.
	w = m.start(w.leaderSide)
	defer w.end()
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	if !w.published("t1").GetHealthy() {
		t.Error("the restart made it unhealthy")
	}
	healthy.Store(false)
	w.waitGone("t1")
	want := []string{"TASK_STARTING", "TASK_RUNNING", "TASK_RUNNING", "TASK_RUNNING", "TASK_RUNNING", "TASK_RUNNING", "TASK_KILLED"}
	if got := w.told("t1"); !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if last := w.last("t1"); last.Healthy == nil || last.GetHealthy() {
		t.Errorf("the last status: got %v", last)
	}
}

func TestInvalidChecksAreRefused(t *testing.T) {
	w := newMachine(t).start(nil)
	defer w.end()
	info := taskInfo(t, "t1", "cpus:1;mem:32")
	info.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum(), Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: proto.Uint32(0)}}
	w.mustCall(launchCall(frameworkInfo(), info))
	w.waitGone("t1")
	if last := w.last("t1"); last.GetState() != mesos.TaskState_TASK_ERROR || last.GetMessage() != "Task uses invalid health check: port 0 is not between 1 and 65535" {
		t.Errorf("got %v", last)
	}
}

// TestChecksOfContainers has tasks in a network of their own: a command is run in the container, and where its namespace is
// out of reach the container is asked by its address.
func TestChecksOfContainers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := newMachine(t)
	m.networks = []*mesos.NetworkInfo{{
		Name: proto.String("n"), IpAddresses: []*mesos.NetworkInfo_IPAddress{{IpAddress: proto.String("127.0.0.3")}},
	}}
	m.nextPID = 1 << 23 // beyond all real ones
	w := m.start(nil)
	defer w.end()
	now := func(h *mesos.HealthCheck) *mesos.HealthCheck {
		h.DelaySeconds, h.IntervalSeconds, h.GracePeriodSeconds = proto.Float64(0), proto.Float64(0.05), proto.Float64(0)
		return h
	}
	tcp, command := taskInfo(t, "tcp", "cpus:1;mem:32"), taskInfo(t, "command", "cpus:1;mem:32")
	tcp.HealthCheck = now(&mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum(), Tcp: &mesos.HealthCheck_TCPCheckInfo{
		Port: proto.Uint32(uint32(l.Addr().(*net.TCPAddr).Port)),
	}})
	command.HealthCheck = now(&mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND.Enum(), Command: &mesos.CommandInfo{Value: proto.String("exit 0")}})
	w.mustCall(launchCall(frameworkInfo(), tcp, command))
	w.wait("healthy", func() bool { return w.published("tcp").GetHealthy() })
	// This containerizer runs no commands in containers, and on the node it would have succeeded.
	w.waitGone("command")
	if last := w.last("command"); last.GetState() != mesos.TaskState_TASK_KILLED || last.Healthy == nil || last.GetHealthy() {
		t.Errorf("got %v", last)
	}
}

// execless is a containerizer that runs commands in containers, and cannot do it now.
type execless struct{ *life }

func (execless) Exec(context.Context, string, containerizer.Process) (containerizer.Session, error) {
	return nil, errors.New("the container is gone")
}

// The commands of a plain task run in its cgroups: on the node, what they start would have no limits, and outlive it.
func TestCommandsOfChecksRunInTheContainer(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil, func(c *Config) { c.Containerizer = execless{c.Containerizer.(*life)} })
	defer w.end()
	info := taskInfo(t, "t1", "cpus:1;mem:32")
	info.HealthCheck = &mesos.HealthCheck{
		Type: mesos.HealthCheck_COMMAND.Enum(), Command: &mesos.CommandInfo{Value: proto.String("exit 0")},
		DelaySeconds: proto.Float64(0), IntervalSeconds: proto.Float64(0.05), GracePeriodSeconds: proto.Float64(0),
	}
	w.mustCall(launchCall(frameworkInfo(), info))
	w.waitGone("t1")
	if last := w.last("t1"); last.Healthy == nil || last.GetHealthy() {
		t.Errorf("got %v", last)
	}
}

func TestMappedPortsAreTheTasksOwn(t *testing.T) {
	w := newMachine(t).start(nil)
	defer w.end()
	mapped := func(id, res string, port uint32) *mesos.TaskInfo {
		info := taskInfo(t, id, res)
		info.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{
			Name: proto.String("n"), PortMappings: []*mesos.NetworkInfo_PortMapping{{HostPort: &port, ContainerPort: proto.Uint32(80)}},
		}}}
		return info
	}
	w.mustCall(launchCall(frameworkInfo(), mapped("own", "cpus:1;mem:32;ports:[31000-31001]", 31001), mapped("foreign", "cpus:1;mem:32;ports:[31002-31003]", 31001)))
	w.waitState("own", mesos.TaskState_TASK_RUNNING)
	w.waitGone("foreign")
	if last := w.last("foreign"); last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(last.GetMessage(), "Port [31001] not included in resources") {
		t.Errorf("got %v", last)
	}
}
