package master_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// What frameworks send to an agent that does not answer is bounded in bytes as well: messages may be large.
func TestCallsThatWaitAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		say := func(size int) {
			t.Helper()
			f.Call(&scheduler.Call{Type: scheduler.Call_MESSAGE.Enum(), Message: &scheduler.Call_Message{
				AgentId: &mesos.AgentID{Value: proto.String(a.ID)}, ExecutorId: &mesos.ExecutorID{Value: proto.String("e")},
				Data: make([]byte, size),
			}})
		}
		heard := func() (n int) {
			for _, call := range a.Calls() {
				if call.GetMessage() != nil {
					n++
				}
			}
			return n
		}
		a.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable })
		const size = 1 << 20
		for range 40 {
			say(size)
		}
		a.SetFault(nil)
		time.Sleep(10 * time.Second)
		got := heard()
		if most := master.MaxLaneSize/size + 1; got == 0 || got > most { // one is on its way
			t.Errorf("%d messages of 1 MiB were kept, want up to %d", got, most)
		}
		for range 40 {
			say(size)
			time.Sleep(time.Second)
		}
		if later := heard(); later != got+40 {
			t.Errorf("later %d of 40 arrived", later-got)
		}
	})
}
