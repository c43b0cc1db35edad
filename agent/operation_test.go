package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// reserved is resources such as "cpus:1;mem:32", dynamically reserved for the role web and allocated to it.
func reserved(t *testing.T, res string) []*mesos.Resource {
	t.Helper()
	out := testResources(t, res).AllocatedTo("web").Proto()
	for _, r := range out {
		r.Reservations = []*mesos.Resource_ReservationInfo{{
			Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("web"),
		}}
	}
	return out
}

// volume is a persistent volume that tasks see at "data".
func volume(t *testing.T, id string, size int) *mesos.Resource {
	t.Helper()
	r := reserved(t, fmt.Sprintf("disk:%d", size))[0]
	r.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: &id},
		Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")},
	}
	return r
}

func reserveOp(rs ...*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: rs}}
}

func unreserveOp(rs ...*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: rs}}
}

func createOp(rs ...*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: rs}}
}

func destroyOp(rs ...*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: rs}}
}

// named asks for feedback.
func named(id string, op *mesos.Offer_Operation) *mesos.Offer_Operation {
	op.Id = &mesos.OperationID{Value: &id}
	return op
}

var operations uint64

// applyCall is a call with operations of the test's framework, each under a new uuid.
func applyCall(ops ...*mesos.Offer_Operation) *nodeapi.Call {
	apply := &nodeapi.Apply{Operations: ops, FrameworkId: frameworkInfo().GetId()}
	for range ops {
		operations++
		apply.Uuids = append(apply.Uuids, fmt.Appendf(nil, "%016d", operations))
	}
	return &nodeapi.Call{Call: &nodeapi.Call_Apply{Apply: apply}}
}

func ackOperation(id []byte) *nodeapi.Call {
	return &nodeapi.Call{Call: &nodeapi.Call_AcknowledgeOperation{AcknowledgeOperation: &nodeapi.AcknowledgeOperation{
		FrameworkId: frameworkInfo().GetId(), Uuid: id,
	}}}
}

// apply has operations carried out and returns their states; all are to be finished unless want says otherwise.
func (w *world) apply(ops ...*mesos.Offer_Operation) []*mesos.OperationStatus {
	w.t.Helper()
	out := w.mustCall(applyCall(ops...)).GetOperations()
	for i, st := range out {
		if st.GetState() != mesos.OperationState_OPERATION_FINISHED {
			w.t.Fatalf("%s: got %v", ops[i].GetType(), st)
		}
	}
	return out
}

// refused has one operation refused, and returns its message.
func (w *world) refused(want mesos.OperationState, op *mesos.Offer_Operation) string {
	w.t.Helper()
	st := w.mustCall(applyCall(op)).GetOperations()[0]
	if st.GetState() != want {
		w.t.Fatalf("%s: got %v, want %s", op.GetType(), st, want)
	}
	return st.GetMessage()
}

func (w *world) total() resources.Resources {
	w.t.Helper()
	value, _ := w.mesh.Snapshot(testAgent).Get(catalog.KeyResources)
	out := &catalog.Resources{}
	if err := proto.Unmarshal(value, out); err != nil {
		w.t.Fatal(err)
	}
	return nodeapi.ResourcesFromCatalog(out.GetTotal())
}

// volumeDir is where a volume of the role web lies.
func (m *machine) volumeDir(id string) string {
	return filepath.Join(m.dir, "volumes", "roles", "web", id)
}

const nodeResources = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]"

func (w *world) wantFree(text string) {
	w.t.Helper()
	parts := func(text string) []string { return slices.Sorted(strings.SplitSeq(text, "; ")) }
	if got := w.free().String(); !slices.Equal(parts(got), parts(text)) {
		w.t.Errorf("free: got %s, want %s", got, text)
	}
}

func TestVolumesAreAsWritableAsTheyWereAskedFor(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	w.apply(reserveOp(reserved(t, "cpus:1;mem:100;disk:100")...))
	for i, mode := range []mesos.Volume_Mode{mesos.Volume_RW, mesos.Volume_RO} {
		id := fmt.Sprint("v", i)
		v := volume(t, id, 10)
		v.Disk.Volume.Mode = mode.Enum()
		w.apply(createOp(v))
		task := taskInfo(t, id, "cpus:1;mem:32")
		task.Resources = append(reserved(t, "cpus:0.1;mem:10"), v)
		task.Container = &mesos.ContainerInfo{
			Type: mesos.ContainerInfo_MESOS.Enum(), Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{Type: mesos.Image_DOCKER.Enum()}},
		}
		w.mustCall(launchCall(frameworkInfo(), task))
		w.waitState(id, mesos.TaskState_TASK_RUNNING)
		m.mu.Lock()
		got := m.containers[w.published(id).GetContainerId()].spec.Mounts
		m.mu.Unlock()
		want := []containerizer.Mount{{Source: m.volumeDir(id), Target: "data", ReadOnly: mode == mesos.Volume_RO}}
		if !slices.Equal(got, want) {
			t.Errorf("%v: got %+v, want %+v", mode, got, want)
		}
	}
}

func TestOperationsChangeWhatTheNodeHas(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	st := w.apply(reserveOp(reserved(t, "cpus:1;mem:100;disk:100;ports:[31000-31001]")...))[0]
	if got, err := resources.FromProto(st.GetConvertedResources()); err != nil || got.Allocations()[0] != "web" || st.GetUuid() != nil {
		t.Errorf("converted: got %v", st)
	}
	w.apply(createOp(volume(t, "v1", 60)))
	w.wantFree("cpus:3; cpus(reservations: [(DYNAMIC,web)]):1; disk:10140; disk(reservations: [(DYNAMIC,web)]):40; " +
		"disk(reservations: [(DYNAMIC,web)])[v1:data]:60; mem:3996; mem(reservations: [(DYNAMIC,web)]):100; " +
		"ports:[31002-32000]; ports(reservations: [(DYNAMIC,web)]):[31000-31001]")
	if info, err := os.Stat(m.volumeDir("v1")); err != nil || !info.IsDir() {
		t.Errorf("the folder of the volume: %v", err)
	}

	task := taskInfo(t, "t1", "cpus:1;mem:32")
	task.Resources = append(reserved(t, "cpus:1;mem:100"), volume(t, "v1", 60))
	w.mustCall(launchCall(frameworkInfo(), task))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	m.mu.Lock()
	link := filepath.Join(m.containers[w.published("t1").GetContainerId()].spec.Dir, "data")
	m.mu.Unlock()
	if target, err := os.Readlink(link); err != nil || target != m.volumeDir("v1") {
		t.Errorf("the volume in the sandbox: got %q, %v", target, err)
	}
	if err := os.WriteFile(filepath.Join(link, "file"), []byte("data"), 0o600); err != nil {
		t.Error(err)
	}
	for name, op := range map[string]*mesos.Offer_Operation{
		"a volume in use":            destroyOp(volume(t, "v1", 60)),
		"a reservation in use":       unreserveOp(reserved(t, "cpus:1")...),
		"a volume of another size":   destroyOp(volume(t, "v1", 61)),
		"more than there is":         reserveOp(reserved(t, "cpus:4")...),
		"what is reserved":           reserveOp(reserved(t, "ports:[31001-31002]")...),
		"a volume of a free disk":    createOp(volume(t, "v2", 50)),
		"a reservation of nobody":    unreserveOp(reserved(t, "mem:1")...),
		"a volume that nobody knows": destroyOp(volume(t, "v3", 1)),
	} {
		if got := w.refused(mesos.OperationState_OPERATION_DROPPED, op); !strings.HasPrefix(got, "Operation does not fit on this agent: ") {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for name, tc := range map[string]struct {
		op   *mesos.Offer_Operation
		want string
	}{
		"a second volume of that id": {createOp(volume(t, "v1", 10)), "Persistence ID 'v1' is not unique"},
		"an id that climbs":          {createOp(volume(t, "..", 10)), `Invalid CREATE Operation: resource "disk": the id ".."`},
		"another kind":               {&mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum()}, "LAUNCH changes no resources"},
		"what is not reserved":       {unreserveOp(testResources(t, "cpus:1").Proto()...), "is not dynamically reserved"},
		"text that is no UTF-8": {reserveOp(func() *mesos.Resource {
			r := reserved(t, "cpus:1")[0]
			r.Reservations[0].Principal = proto.String("\xff")
			return r
		}()), "not UTF-8"},
	} {
		if got := w.refused(mesos.OperationState_OPERATION_ERROR, tc.op); !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}

	m.exit("t1", 0)
	w.waitGone("t1")
	if data, err := os.ReadFile(filepath.Join(m.volumeDir("v1"), "file")); string(data) != "data" {
		t.Errorf("the volume after its task: %q, %v", data, err)
	}
	w.apply(destroyOp(volume(t, "v1", 60)), unreserveOp(reserved(t, "cpus:1;mem:100;disk:100;ports:[31000-31001]")...))
	w.wantFree(testResources(t, nodeResources).String())
	if _, err := os.Stat(m.volumeDir("v1")); !os.IsNotExist(err) {
		t.Errorf("the folder of a destroyed volume: %v", err)
	}
	w.wait("nothing left of the destroyed volume", func() bool {
		left, err := os.ReadDir(filepath.Join(m.dir, "volumes", "destroyed"))
		return err == nil && len(left) == 0
	})
	// Another one of that name is empty.
	w.apply(reserveOp(reserved(t, "disk:60")...), createOp(volume(t, "v1", 60)))
	if left, err := os.ReadDir(m.volumeDir("v1")); err != nil || len(left) != 0 {
		t.Errorf("a new volume of an old name holds %v, %v", left, err)
	}
}

func TestVolumesChangeTheirSize(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	w.apply(reserveOp(reserved(t, "disk:100")...), createOp(volume(t, "v1", 60)))
	if err := os.WriteFile(filepath.Join(m.volumeDir("v1"), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.apply(&mesos.Offer_Operation{
		Type:       mesos.Offer_Operation_GROW_VOLUME.Enum(),
		GrowVolume: &mesos.Offer_Operation_GrowVolume{Volume: volume(t, "v1", 60), Addition: reserved(t, "disk:40")[0]},
	}, &mesos.Offer_Operation{
		Type:         mesos.Offer_Operation_SHRINK_VOLUME.Enum(),
		ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{Volume: volume(t, "v1", 100), Subtract: &mesos.Value_Scalar{Value: proto.Float64(90)}},
	})
	w.wantFree("cpus:4; disk:10140; disk(reservations: [(DYNAMIC,web)]):90; disk(reservations: [(DYNAMIC,web)])[v1:data]:10; " +
		"mem:4096; ports:[31000-32000]")
	if _, err := os.Stat(filepath.Join(m.volumeDir("v1"), "file")); err != nil {
		t.Errorf("what was in it: %v", err)
	}
}

func TestARepeatedOperationHasOneEffect(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	call := applyCall(named("op1", reserveOp(reserved(t, "cpus:1")...)))
	want := "cpus:3; cpus(reservations: [(DYNAMIC,web)]):1; disk:10240; mem:4096; ports:[31000-32000]"
	first := w.mustCall(call).GetOperations()[0]
	repeated := w.mustCall(call)
	wantWholeRecord(t, repeated)
	again := repeated.GetOperations()[0]
	if !proto.Equal(first, again) || first.GetState() != mesos.OperationState_OPERATION_FINISHED || len(first.GetUuid().GetValue()) != 16 {
		t.Errorf("got %v, and then %v", first, again)
	}
	w.wantFree(want)
	w.kill()
	w = m.start(w.leaderSide)
	if got := w.mustCall(call).GetOperations()[0]; !proto.Equal(first, got) {
		t.Errorf("got %v, and in the next life %v", first, got)
	}
	w.wantFree(want)
	w.mustCall(ackOperation(first.GetUuid().GetValue()))
	w.wait("no operation pending", func() bool { return len(w.state().Operations) == 0 })
	w.end()
	w = m.start(w.leaderSide)
	defer w.end()
	if got := w.mustCall(call).GetOperations()[0]; got.GetState() != mesos.OperationState_OPERATION_FINISHED || got.GetUuid() == nil {
		t.Errorf("after the acknowledgement: got %v", got)
	}
	w.wantFree(want)
}

func (w *world) state() *State {
	w.t.Helper()
	s, err := w.agent.State(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// reported returns the statuses of operations that were reported, in order.
func (l *leaderSide) reported() []*mesos.OperationStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*mesos.OperationStatus
	for _, r := range l.reports {
		for _, op := range r.GetOperations() {
			out = append(out, op.GetLatestStatus())
		}
	}
	return out
}

// What a framework wants to hear of is repeated after 10 s, 20 s and so on, at once to a new leader, and until it is
// acknowledged; over the lives of the agent.
func TestTheEndOfAnOperationIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := m.start(nil)
		begun := time.Now()
		w.mustCall(applyCall(named("good", reserveOp(reserved(t, "cpus:1")...)), reserveOp(reserved(t, "cpus:1")...)))
		w.mustCall(applyCall(named("bad", reserveOp(reserved(t, "cpus:100")...))))
		count := func(id string) (n int) {
			for _, st := range w.reported() {
				if st.GetOperationId().GetValue() == id {
					n++
				}
			}
			return n
		}
		for _, at := range []struct {
			after time.Duration
			want  int
		}{{9, 1}, {11, 2}, {29, 2}, {31, 3}, {69, 3}, {71, 4}} {
			time.Sleep(time.Until(begun.Add(at.after * time.Second)))
			synctest.Wait()
			if got := count("good"); got != at.want || count("bad") != at.want {
				t.Errorf("after %d s it was told %d and %d times, want %d", at.after, got, count("bad"), at.want)
			}
		}
		w.kill()
		w = m.start(w.leaderSide)
		synctest.Wait()
		if got := count("good"); got != 5 {
			t.Errorf("in the next life it was told %d times, want 5", got)
		}
		w.leads(2)
		w.mesh.lead(t, "master-2", 2)
		synctest.Wait()
		if got := count("good"); got != 6 {
			t.Errorf("to the next leader it was told %d times, want 6", got)
		}
		d := w.mustCall(&nodeapi.Call{Epoch: 2, Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}).GetDescription()
		if got := len(d.GetOperations()); got != 2 {
			t.Errorf("%d operations are described, want 2", got)
		}
		for _, st := range w.reported()[:2] {
			if want := map[string]mesos.OperationState{
				"good": mesos.OperationState_OPERATION_FINISHED, "bad": mesos.OperationState_OPERATION_DROPPED,
			}[st.GetOperationId().GetValue()]; st.GetState() != want || st.GetAgentId().GetValue() != testAgent {
				t.Errorf("got %v, want %s", st, want)
			}
			ack := ackOperation(st.GetUuid().GetValue())
			ack.Epoch = 2
			w.mustCall(ack)
		}
		told := len(w.reported())
		time.Sleep(time.Hour)
		if got := len(w.reported()); got != told {
			t.Errorf("it was told %d times after the acknowledgement", got-told)
		}
		w.end()
	})
}

// A crash between checkpoint and answer leaves an operation that is done, and known to be.
func TestCrashesDuringOperations(t *testing.T) {
	m := newMachine(t)
	side := &leaderSide{epoch: 1, arrived: make(chan struct{}, 1)}
	document := filepath.Join(m.dir, "meta", "resources")
	for i := range 20 {
		w := m.start(side)
		before, _ := os.ReadFile(document)
		ops := []*mesos.Offer_Operation{reserveOp(reserved(t, "disk:10")...), createOp(volume(t, fmt.Sprint("v", i), 10))}
		if i%2 == 1 {
			ops = []*mesos.Offer_Operation{destroyOp(volume(t, fmt.Sprint("v", i-1), 10)), unreserveOp(reserved(t, "disk:10")...)}
		}
		call := applyCall(ops...)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _ = w.call(proto.CloneOf(call)) // the agent may be gone by then
		}()
		w.wait("a write", func() bool {
			now, err := os.ReadFile(document)
			return err == nil && string(now) != string(before)
		})
		w.kill()
		<-answered

		w = m.start(side)
		for _, st := range w.mustCall(call).GetOperations() {
			if st.GetState() != mesos.OperationState_OPERATION_FINISHED {
				t.Errorf("round %d: got %v", i, st)
			}
		}
		_, err := os.Stat(m.volumeDir(fmt.Sprint("v", i-i%2)))
		if there := err == nil; there != (i%2 == 0) {
			t.Errorf("round %d: the folder of the volume is there: %v", i, there)
		}
		if got, want := w.total().Base(), testResources(t, nodeResources); !got.Equal(want) {
			t.Errorf("round %d: %v became of %v", i, got, want)
		}
		if p := w.problems(); len(p) > 0 {
			t.Errorf("round %d: problems %q", i, p)
		}
		w.kill()
	}
	w := m.start(side)
	defer w.end()
	w.wantFree(testResources(t, nodeResources).String())
}

// A framework that acknowledges nothing fills neither the disk nor the answers to the leader.
func TestUnacknowledgedOperationsAreBounded(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	large := reserved(t, "cpus:100")[0]
	large.Reservations[0].Principal = proto.String(strings.Repeat("x", 300<<10))
	kept := 0
	for i := range 6 {
		st := w.mustCall(applyCall(named(fmt.Sprint("op", i), reserveOp(large)))).GetOperations()[0]
		if st.GetState() != mesos.OperationState_OPERATION_DROPPED {
			t.Fatalf("got %v", st.GetState())
		}
		if st.GetUuid() != nil {
			kept++
		}
	}
	if got := len(w.state().Operations); got != kept || kept == 0 || kept > 3 {
		t.Errorf("%d of 6 operations of 300 KiB are kept, %d said to be", got, kept)
	}
	for range 8 { // nobody wants to hear of these, and they are remembered all the same
		w.mustCall(applyCall(reserveOp(large)))
	}
	if info, err := os.Stat(filepath.Join(m.dir, "meta", "resources")); err != nil || info.Size() > 5<<18 {
		t.Errorf("on disk: %v, %v", info, err)
	}
}

func TestAVolumeWithoutItsFolderIsTold(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.apply(reserveOp(reserved(t, "disk:100")...), createOp(volume(t, "v1", 100)))
	w.end()
	if err := os.RemoveAll(m.volumeDir("v1")); err != nil {
		t.Fatal(err)
	}
	w = m.start(w.leaderSide)
	defer w.end()
	if !slices.ContainsFunc(w.problems(), func(p string) bool { return strings.Contains(p, "the folder of the persistent volume") }) {
		t.Errorf("problems: %q", w.problems())
	}
	task := taskInfo(t, "t1", "cpus:1;mem:32")
	task.Resources = append(testResources(t, "cpus:1;mem:32").AllocatedTo("web").Proto(), volume(t, "v1", 100))
	w.mustCall(launchCall(frameworkInfo(), task))
	w.wait("the end told", func() bool { return slices.Contains(w.told("t1"), "TASK_FAILED") })
	if got := w.last("t1").GetMessage(); !strings.Contains(got, "is not there") {
		t.Errorf("got %q", got)
	}
}

func TestVolumesOutsideOfTheSandboxAreRefused(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	v := volume(t, "v1", 100)
	v.Disk.Volume.ContainerPath = proto.String("../data")
	w.apply(reserveOp(reserved(t, "disk:100")...), createOp(v))
	task := taskInfo(t, "t1", "cpus:1;mem:32")
	task.Resources = append(testResources(t, "cpus:1;mem:32").AllocatedTo("web").Proto(), v)
	w.mustCall(launchCall(frameworkInfo(), task))
	w.wait("the end told", func() bool { return len(w.told("t1")) > 0 })
	if got := w.last("t1"); got.GetState() != mesos.TaskState_TASK_FAILED || !strings.Contains(got.GetMessage(), `container_path "../data" does not lie below the sandbox`) {
		t.Errorf("got %v", got)
	}
}

func TestAnEndedFrameworkIsToldNothingOfOperations(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.apply(named("op1", reserveOp(reserved(t, "cpus:1")...)))
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_ShutdownFramework{ShutdownFramework: &nodeapi.ShutdownFramework{FrameworkId: frameworkInfo().GetId()}}})
	w.wait("no operation pending", func() bool { return len(w.state().Operations) == 0 })
	w.end()
	w = m.start(w.leaderSide)
	defer w.end()
	if got := w.state(); len(got.Operations) > 0 || got.Total.ReservedFor("web").Empty() {
		t.Errorf("got %v, and %s", got.Operations, got.Total)
	}
}

// A framework that only waits for the end of an operation is described: a leader that does not know it meets it by that.
func TestAFrameworkWhoseOperationWaitsIsDescribed(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	described := func() int {
		return len(w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}).GetDescription().GetFrameworks())
	}
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	m.exit("t1", 0)
	w.waitGone("t1")
	w.wait("a framework without tasks that is not described", func() bool { return described() == 0 })
	st := w.apply(named("op", reserveOp(reserved(t, "cpus:1")...)))[0]
	if got := described(); got != 1 {
		t.Errorf("%d frameworks are described while the operation waits, want 1", got)
	}
	w.mustCall(ackOperation(st.GetUuid().GetValue()))
	w.wait("a framework that waits for nothing and is not described", func() bool { return described() == 0 })
}
