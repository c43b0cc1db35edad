package containerizer_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/master/mesos"
)

var (
	docker = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
	native = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
)

// two joins containerizers of both types.
func two(d, m containerizer.Containerizer) *containerizer.Composite {
	return containerizer.NewComposite(
		containerizer.Part{Name: "docker", Type: mesos.ContainerInfo_DOCKER, Containerizer: d},
		containerizer.Part{Name: "mesos", Type: mesos.ContainerInfo_MESOS, Containerizer: m},
	)
}

func TestCompositePassesTheSuite(t *testing.T) {
	behave := func(spec containerizer.Spec) containerizertest.Behaviour {
		code, _ := strconv.Atoi(spec.Args[1])
		return containerizertest.Behaviour{
			Ends: slices.Contains(spec.Args, "ends"), ExitCode: code,
			IgnoresTerm: slices.Contains(spec.Args, "ignores-term"), Missing: spec.Path == "missing",
		}
	}
	containerizertest.Run(t, func(*testing.T) containerizertest.Harness {
		d, m := containerizertest.NewFake(), containerizertest.NewFake()
		d.Behave, m.Behave = behave, behave
		first := true
		return containerizertest.Harness{
			Open: func(*testing.T) containerizer.Containerizer {
				if !first {
					d, m = d.Restart(), m.Restart()
				}
				first = false
				return two(d, m)
			},
			Close: func(t *testing.T, c containerizer.Containerizer) {
				if err := c.(*containerizer.Composite).Close(); err != nil {
					t.Error(err)
				}
			},
			Spec: func(_ *testing.T, id string, b containerizertest.Behaviour) containerizer.Spec {
				spec := containerizer.Spec{ID: id, Path: "program", Args: []string{"program", strconv.Itoa(b.ExitCode)}}
				if len(id)%2 == 0 { // some here, some there
					spec.Container = docker
				}
				for name, set := range map[string]bool{"ends": b.Ends, "ignores-term": b.IgnoresTerm} {
					if set {
						spec.Args = append(spec.Args, name)
					}
				}
				if b.Missing {
					spec.Path = "missing"
				}
				return spec
			},
		}
	})
}

func TestCompositeChoosesByType(t *testing.T) {
	d, m := containerizertest.NewFake(), containerizertest.NewFake()
	c := two(d, m)
	if _, err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []containerizer.Spec{
		{ID: "plain"},
		{ID: "native", Container: native},
		{ID: "docker", Container: docker},
		{ID: "nested", Parent: "native"},
		{ID: "in-docker", Parent: "docker"},
	} {
		if _, err := c.Launch(t.Context(), spec); err != nil {
			t.Errorf("%s: %v", spec.ID, err)
		}
	}
	if got := strings.Join(d.Running(), " "); got != "docker in-docker" {
		t.Errorf("docker runs %q", got)
	}
	if got := strings.Join(m.Running(), " "); got != "plain native nested" {
		t.Errorf("mesos runs %q", got)
	}
	for _, tc := range []struct {
		spec containerizer.Spec
		want error
	}{
		{containerizer.Spec{ID: "x", Parent: "nobody"}, containerizer.ErrUnknownContainer},
		{containerizer.Spec{ID: "x", Parent: "native", Container: docker}, containerizer.ErrUnsupported},
		{containerizer.Spec{ID: "plain", Container: docker}, containerizer.ErrExists},
	} {
		if _, err := c.Launch(t.Context(), tc.spec); !errors.Is(err, tc.want) {
			t.Errorf("%+v: got %v, want %v", tc.spec, err, tc.want)
		}
	}
	alone := containerizer.NewComposite(containerizer.Part{Name: "mesos", Type: mesos.ContainerInfo_MESOS, Containerizer: m})
	if _, err := alone.Launch(t.Context(), containerizer.Spec{ID: "y", Container: docker}); !errors.Is(err, containerizer.ErrType) ||
		!strings.Contains(err.Error(), "container type not supported: DOCKER") {
		t.Errorf("got %v, want ErrType with the type", err)
	}
	if err := alone.Usable(docker); !errors.Is(err, containerizer.ErrType) {
		t.Errorf("got %v, want ErrType", err)
	}
}

// grouped is a fake that holds groups.
type grouped struct {
	*containerizertest.Fake
	groups []string
}

func (g *grouped) OpenGroup(_ context.Context, group containerizer.Group) ([]*mesos.NetworkInfo, error) {
	g.groups = append(g.groups, group.ID)
	return nil, nil
}

func (g *grouped) CloseGroup(_ context.Context, id string) error {
	g.groups = slices.DeleteFunc(g.groups, func(have string) bool { return have == id })
	return nil
}

func (g *grouped) ListGroups(context.Context) ([]string, error) { return g.groups, nil }

func TestCompositeFindsGroupsAgain(t *testing.T) {
	m := &grouped{Fake: containerizertest.NewFake()}
	c := two(containerizertest.NewFake(), m)
	if _, err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenGroup(t.Context(), containerizer.Group{ID: "g"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenGroup(t.Context(), containerizer.Group{ID: "d", Container: docker}); !errors.Is(err, containerizer.ErrUnsupported) {
		t.Errorf("a group in docker: got %v, want ErrUnsupported", err)
	}
	m = &grouped{Fake: m.Restart(), groups: m.groups}
	next := two(containerizertest.NewFake(), m)
	if _, err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Launch(t.Context(), containerizer.Spec{ID: "member", Parent: "g"}); err != nil {
		t.Errorf("launch in a group of an earlier life: %v", err)
	}
	if ids, err := next.ListGroups(t.Context()); err != nil || !slices.Equal(ids, []string{"g"}) {
		t.Errorf("got %v, %v", ids, err)
	}
	if err := next.CloseGroup(t.Context(), "g"); err != nil || len(m.groups) != 0 {
		t.Errorf("close: %v, left %v", err, m.groups)
	}
	if err := next.CloseGroup(t.Context(), "g"); err != nil {
		t.Errorf("a group that is not there: %v", err)
	}
}

// hanging is a fake whose engine stops answering.
type hanging struct {
	*containerizertest.Fake
	hangs chan struct{}
	lost  error // what Recover says
}

func (h *hanging) Recover(ctx context.Context) ([]containerizer.Container, error) {
	found, err := h.Fake.Recover(ctx)
	return found, errors.Join(err, h.lost)
}

func (h *hanging) Check(context.Context) error { <-h.hangs; return nil }

func (h *hanging) Destroy(context.Context, string) error { <-h.hangs; return nil }

func TestCompositeIsNotHeldUpByOnePart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, m := &hanging{Fake: containerizertest.NewFake(), hangs: make(chan struct{})}, containerizertest.NewFake()
		c := two(d, m)
		if _, err := c.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Launch(t.Context(), containerizer.Spec{ID: "stuck", Container: docker}); err != nil {
			t.Fatal(err)
		}
		go c.Destroy(t.Context(), "stuck")
		synctest.Wait()
		begun := time.Now()
		for range 2 { // the second time, the first question is still open
			err := c.Check(t.Context())
			if !errors.Is(err, containerizer.ErrDegraded) || !strings.Contains(err.Error(), "docker") || strings.Contains(err.Error(), "mesos") {
				t.Errorf("got %v, want docker to be degraded", err)
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("two checks took %v", took)
		}
		if err := c.Usable(docker); !errors.Is(err, containerizer.ErrDegraded) {
			t.Errorf("got %v, want ErrDegraded", err)
		}
		if err := c.Usable(nil); err != nil {
			t.Errorf("the other part: %v", err)
		}
		if _, err := c.Launch(t.Context(), containerizer.Spec{ID: "free"}); err != nil {
			t.Error(err)
		}
		if err := c.Destroy(t.Context(), "free"); err != nil {
			t.Error(err)
		}
		if exit := <-c.Exits(); exit.ID != "free" {
			t.Errorf("got %+v", exit)
		}
		close(d.hangs)
		synctest.Wait()
		if err := c.Check(t.Context()); err != nil {
			t.Errorf("after it answers: %v", err)
		}
		if err := errors.Join(c.Usable(docker), c.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestCompositeRecoversWhatItCan(t *testing.T) {
	d, m := containerizertest.NewFake(), containerizertest.NewFake()
	first := two(d, m)
	if _, err := first.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []containerizer.Spec{{ID: "a"}, {ID: "b", Container: docker}} {
		if _, err := first.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	gone := errors.Join(containerizer.ErrDegraded, errors.New("no engine"))
	down := &hanging{Fake: d.Restart(), lost: gone}
	next := two(down, m.Restart())
	found, err := next.Recover(t.Context())
	if !errors.Is(err, containerizer.ErrDegraded) || len(found) != 2 {
		t.Errorf("got %+v, %v", found, err)
	}
	if err := next.Usable(docker); !errors.Is(err, containerizer.ErrDegraded) {
		t.Errorf("got %v, want ErrDegraded", err)
	}
	if err := next.Usable(native); err != nil {
		t.Error(err)
	}
	broken := two(&hanging{Fake: containerizertest.NewFake(), lost: errors.New("records do not read")}, containerizertest.NewFake())
	if _, err := broken.Recover(t.Context()); err == nil || errors.Is(err, containerizer.ErrDegraded) || !strings.Contains(err.Error(), "docker") {
		t.Errorf("got %v, want an error that names the part", err)
	}
}
