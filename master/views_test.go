package master_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"starling/master"
)

// Readers that ask while the loop is busy share one view, whatever changes between their requests; one that has no more time
// takes nothing from the others.
func TestReadersShareAView(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		release := c.Master.Occupy()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Master.View(impatient); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("one that can't wait: got %v", err)
			}
		})
		synctest.Wait()
		views := make([]*master.View, 20)
		for i := range views {
			wg.Go(func() {
				var err error
				if views[i], err = c.Master.View(t.Context()); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			if i == 0 {
				time.Sleep(2 * time.Second) // the first one gives up, and another asks in its place
			}
			c.Master.Change()
		}
		release()
		wg.Wait()
		synctest.Wait() // the loop has come to the changes, too: a reader is answered before those that came after it
		for i, v := range views {
			if v != views[0] {
				t.Errorf("reader %d got a view of version %d, the first one %d", i, v.Version, views[0].Version)
			}
		}
		if v, err := c.Master.View(t.Context()); err != nil || v.Version <= views[0].Version {
			t.Errorf("after the changes: got version %d, %v", v.Version, err)
		}
	})
}
