package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"starling/master/mesos/resources"
)

func parse(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text, "*")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func holder(id string) Holder { return Holder{Framework: "f", Executor: id, Task: id} }

func TestTakeAndRelease(t *testing.T) {
	total := parse(t, "cpus:4;mem:4096;disk(db):100;ports:[31000-31010]")
	l := New(total)
	if err := l.Take(holder("a"), parse(t, "cpus:1.5;mem:1000;ports:[31000-31001]").AllocatedTo("web")); err != nil {
		t.Fatal(err)
	}
	if got, want := l.Free().String(), parse(t, "cpus:2.5;mem:3096;disk(db):100;ports:[31002-31010]").String(); got != want {
		t.Errorf("free: got %s, want %s", got, want)
	}
	if err := l.Take(holder("a"), parse(t, "cpus:0.1")); err == nil {
		t.Error("a holder took twice")
	}
	if got, want := l.UsedBy("f").Allocations(), "[web]"; fmt.Sprint(got) != want {
		t.Errorf("roles of what is used: got %v, want %s", got, want)
	}
	if got, want := l.Reserved().String(), parse(t, "disk(db):100").String(); got != want {
		t.Errorf("reserved: got %s, want %s", got, want)
	}
	l.Release(holder("a"))
	l.Release(holder("a"))
	if !l.Free().Equal(total) {
		t.Errorf("free after the release: got %s, want %s", l.Free(), total)
	}
}

// An operation holds what it takes while it is under way, and leaves what it gives in its place.
func TestConvert(t *testing.T) {
	l := New(parse(t, "cpus:4;mem:4096"))
	if err := l.Take(holder("a"), parse(t, "cpus:1")); err != nil {
		t.Fatal(err)
	}
	op, takes, gives := Holder{Operation: "op"}, parse(t, "cpus:2"), parse(t, "cpus(db):2")
	if err := l.Take(op, takes); err != nil {
		t.Fatal(err)
	}
	if err := l.Take(holder("b"), parse(t, "cpus:2")); err == nil {
		t.Error("what an operation takes was given away")
	}
	l.Release(op)
	l.Convert(takes.AllocatedTo("db"), gives.AllocatedTo("db"))
	if got, want := l.Free().String(), parse(t, "cpus:1;cpus(db):2;mem:4096").String(); got != want {
		t.Errorf("free: got %s, want %s", got, want)
	}
	if got, want := l.Total().String(), parse(t, "cpus:2;cpus(db):2;mem:4096").String(); got != want {
		t.Errorf("total: got %s, want %s", got, want)
	}
}

func TestALackNamesAllReasons(t *testing.T) {
	l := New(parse(t, "cpus:4;mem:4096;disk(db):100;ports:[31000-31010]"))
	if err := l.Take(holder("a"), parse(t, "cpus:3;ports:[31000-31000]")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, need string
		reasons    []string
	}{
		{"free enough once", "cpus:2", []string{"only cpus"}},
		{"more than there is", "mem:5000", []string{"more than this agent has"}},
		{"unknown", "gpus:1", []string{"this agent has no gpus"}},
		{"port taken", "ports:[31000-31000]", []string{"ports"}},
		{"reserved for another role", "disk:50", []string{"disk"}},
		{"all at once", "cpus:2;mem:5000;gpus:1", []string{"cpus", "mem", "gpus"}},
	} {
		err := l.Fits(parse(t, tc.need))
		lack, ok := errors.AsType[*Lack](err)
		if !ok || len(lack.Reasons) != len(tc.reasons) {
			t.Errorf("%s: got %v", tc.name, err)
			continue
		}
		for _, want := range tc.reasons {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, want it to name %q", tc.name, err, want)
			}
		}
	}
	if err := l.Fits(parse(t, "cpus:1;mem:4096;disk(db):100;ports:[31001-31010]")); err != nil {
		t.Errorf("what is left: %v", err)
	}
}

func TestAdoptedTasksCountEvenWhereTheyDoNotFit(t *testing.T) {
	l := New(parse(t, "cpus:2;ports:[1-5]"))
	l.Adopt(holder("a"), parse(t, "cpus:1.5;ports:[1-3]"))
	l.Adopt(holder("b"), parse(t, "cpus:1.5;ports:[3-4]"))
	if got, want := l.Free().String(), parse(t, "ports:[5-5]").String(); got != want {
		t.Errorf("free: got %s, want %s", got, want)
	}
	l.Release(holder("a"))
	if got, want := l.Free().String(), parse(t, "cpus:0.5;ports:[1-2,5-5]").String(); got != want {
		t.Errorf("free with one gone: got %s, want %s", got, want)
	}
	l.SetTotal(parse(t, "cpus:1"))
	if got := l.Free(); !got.Empty() {
		t.Errorf("free of a smaller total: got %s", got)
	}
	l.Release(holder("b"))
	if got, want := l.Free().String(), parse(t, "cpus:1").String(); got != want {
		t.Errorf("free in the end: got %s, want %s", got, want)
	}
}

// TestTheBooksBalance: whatever is taken and released, free and used add up to the total.
func TestTheBooksBalance(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	total := parse(t, "cpus:8;mem:8192;ports:[1-100]")
	l := New(total)
	for range 3000 {
		h := holder(fmt.Sprint(rng.IntN(20)))
		if rng.IntN(2) == 0 {
			l.Release(h)
		} else {
			port := 1 + rng.IntN(100)
			need := parse(t, fmt.Sprintf("cpus:%.3f;mem:%d;ports:[%d-%d]", rng.Float64()*2, 1+rng.IntN(1000), port, port))
			fits := l.Fits(need)
			_, holds := l.Held(h)
			if err := l.Take(h, need.AllocatedTo("web")); (err == nil) != (fits == nil && !holds) {
				t.Fatalf("take: %v, fits: %v, holds: %v", err, fits, holds)
			}
		}
		if got := l.Free().Add(l.Used()); !got.Equal(total) {
			t.Fatalf("free and used are %s, want %s", got, total)
		}
	}
	for _, h := range l.Holders() {
		l.Release(h)
	}
	if !l.Used().Empty() {
		t.Errorf("used in the end: %s", l.Used())
	}
}

// A total that shrinks, or is reserved anew, under tasks that run: what they hold is nobody else's, in no role.
func TestWhatIsHeldIsOfferedToNobody(t *testing.T) {
	for _, tc := range []struct{ name, held, total, free, over string }{
		{"less", "cpus:4;mem:1000;ports:[1-10]", "cpus:2;mem:4000;ports:[5-20]", "mem:3000;ports:[11-20]", "cpus:2;ports:[1-4]"},
		{"reserved", "cpus:3;mem:1000", "cpus(db):4;mem:4000", "cpus(db):1;mem:3000", "cpus:3"},
		{"reserved ports", "ports:[5-8,30-31]", "ports(db):[1-10];ports:[11-20]", "ports(db):[1-4,9-10];ports:[11-20]", "ports:[5-8,30-31]"},
		{"partly reserved", "cpus:3", "cpus:1;cpus(db):1;cpus(web):3", "cpus(web):2", "cpus:2"},
		{"elements", "bugs:{a,b}", "bugs(db):{b,c}", "bugs(db):{c}", "bugs:{a,b}"},
		{"more", "cpus:1", "cpus:5", "cpus:4", ""},
	} {
		l := New(parse(t, tc.total))
		l.Adopt(holder("a"), parse(t, tc.held).AllocatedTo("web"))
		if got, want := l.Free().String(), parse(t, tc.free).String(); got != want {
			t.Errorf("%s: free is %s, want %s", tc.name, got, want)
		}
		if got, want := l.Over().String(), parse(t, tc.over).String(); got != want {
			t.Errorf("%s: over is %s, want %s", tc.name, got, want)
		}
		l.Release(holder("a"))
		if got := l.Free(); !got.Equal(parse(t, tc.total)) || !l.Over().Empty() {
			t.Errorf("%s: in the end %s is free and %s over", tc.name, got, l.Over())
		}
	}
}
