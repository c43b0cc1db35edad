package marathon_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
)

// BenchmarkScale is the time from the request to 100 running tasks, with a master and agents that cost nothing and a store
// in memory: Marathon's own part of the budget of 0.7 s for all.
func BenchmarkScale(b *testing.B) {
	cluster := mastertest.New(nil)
	cluster.Add(mastertest.Agent{ID: "a1", Host: "h", CPUs: 200, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	server := mastertest.NewServer(b, cluster)
	c := marathon.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User = []string{server.Address()}, "here", "127.0.0.1:8080", "nobody"
	c.Store, c.Log = mastertest.NewStore(), slog.New(slog.NewTextHandler(io.Discard, nil))
	m, err := marathon.New(c)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	r := &rig{m: m, cluster: cluster}
	until := func(is func() bool) {
		for deadline := time.Now().Add(patience); !is(); {
			if time.Now().After(deadline) {
				b.Fatal("not in time")
			}
			<-time.After(time.Millisecond)
		}
	}
	until(m.Ready)
	scale := func(n int) {
		draft, err := app.ParseUpdate(fmt.Appendf(nil, `{"cmd":"sleep 1000","cpus":0.1,"instances":%d}`, n))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Change(ctx, marathon.Change{Group: app.Root, Edit: func(v scheduler.View) (marathon.Edited, error) {
			root := v.Root()
			rules := root.RulesFor("/web", c.App)
			var a *app.App
			if old := root.App("/web"); old != nil {
				a, err = draft.Update(old, rules)
			} else {
				a, err = draft.Create("/web", rules)
			}
			return marathon.Edited{Root: root.WithApp(a)}, err
		}}); err != nil {
			b.Fatal(err)
		}
		until(func() bool { return len(cluster.Tasks()) == n && r.running("web") == n && r.deployments() == 0 })
	}
	scale(0)
	for b.Loop() {
		scale(100)
		b.StopTimer()
		scale(0)
		b.StartTimer()
	}
}
