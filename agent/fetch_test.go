package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/fetcher"
	"starling/master/mesos"
)

// slowFetcher fetches what ends with "slow" until it is cut off, and fails at what ends with "bad".
type slowFetcher struct {
	mu   sync.Mutex
	asks []fetcher.Request
}

func (f *slowFetcher) Fetch(ctx context.Context, req fetcher.Request) error {
	f.mu.Lock()
	f.asks = append(f.asks, req)
	f.mu.Unlock()
	switch uri := req.URIs[0].GetValue(); uri {
	case "http://h/slow":
		<-ctx.Done()
		return context.Cause(ctx)
	case "http://h/bad":
		return fmt.Errorf("cannot fetch %q: the server answered 404", uri)
	}
	return nil
}

func fetching(t *testing.T, id, uri string) *mesos.TaskInfo {
	info := taskInfo(t, id, "cpus:0.1;mem:32")
	info.Command.Uris = []*mesos.CommandInfo_URI{{Value: proto.String(uri)}}
	return info
}

func TestWhatATaskNeedsIsFetchedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		f := &slowFetcher{}
		m.onLaunch = func(spec containerizer.Spec) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.asks) == 0 {
				return errors.New("launched before anything was fetched")
			}
			return nil
		}
		w := m.start(nil, func(c *Config) { c.Fetcher = f })
		defer w.end()
		w.mustCall(launchCall(frameworkInfo(), fetching(t, "good", "http://h/good")))
		w.waitState("good", mesos.TaskState_TASK_RUNNING)
		if len(f.asks) != 1 || f.asks[0].User != "" || f.asks[0].Sandbox == "" {
			t.Errorf("asked %+v", f.asks)
		}
		w.mustCall(launchCall(frameworkInfo(), fetching(t, "bad", "http://h/bad")))
		w.waitGone("bad")
		if st := w.last("bad"); st.GetState() != mesos.TaskState_TASK_FAILED || st.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED ||
			st.GetMessage() != `Failed to launch container: cannot fetch "http://h/bad": the server answered 404` {
			t.Errorf("got %v", st)
		}
		w.mustCall(launchCall(frameworkInfo(), fetching(t, "wrong", "http://h")))
		w.waitGone("wrong")
		if st := w.last("wrong"); st.GetState() != mesos.TaskState_TASK_FAILED || len(f.asks) != 2 {
			t.Errorf("got %v after %d requests", st, len(f.asks))
		}
	})
}

// Ten launches that wait for a server which does not answer, for longer than any other launch may take: others are not held up,
// and each is over at once when it is killed.
func TestALaunchThatFetchesHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := m.start(nil, func(c *Config) { c.Fetcher = &slowFetcher{} })
		defer w.end()
		for i := range 10 {
			w.mustCall(launchCall(frameworkInfo(), fetching(t, fmt.Sprint("slow", i), "http://h/slow")))
		}
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "quick", "cpus:0.1;mem:32")))
		w.waitState("quick", mesos.TaskState_TASK_RUNNING)
		time.Sleep(2 * w.agent.cfg.LaunchTimeout)
		begun := time.Now()
		for i := range 10 {
			w.mustCall(killCall(fmt.Sprint("slow", i)))
		}
		for i := range 10 {
			id := fmt.Sprint("slow", i)
			w.waitGone(id)
			if got := w.told(id); !slices.Equal(got, []string{"TASK_STARTING", "TASK_KILLED"}) {
				t.Errorf("%s: told %v", id, got)
			}
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("it took %v to end them", took)
		}
	})
}
