package agent

import (
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

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
