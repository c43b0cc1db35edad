package master_test

import (
	"testing"
	"testing/synctest"
	"time"

	"starling/master/mastertest"
	"starling/master/mesos"
)

// A term may end while the answer to a launch is awaited, and the same master lead the next one: no answer comes any more,
// and what waited for it must not wait for ever.
func TestTermEndsWithLaunchUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		a.SetFault(faulty(mastertest.Silent, -1))
		f.Launch(f.ExpectOffer(), 1e6, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running) // and acknowledges it
		synctest.Wait()
		c.Lose()
		synctest.Wait()
		a.SetFault(nil)
		c.Elect()
		synctest.Wait()
		f = mastertest.Subscribe(t, c.Master, f.Again())
		if err := a.Finish(t.Context(), f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		f.ExpectUpdate("t", mesos.TaskState_TASK_FINISHED)
		time.Sleep(time.Second)
		if got := a.Tasks(); len(got) != 0 {
			t.Errorf("the end of a task is acknowledged, and the agent still holds %v", got)
		}
		checkBooks(t, c.Master)
	})
}
