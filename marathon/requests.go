package marathon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/marathon/state"
)

var (
	// ErrNoInstance is returned where an app has no instance waiting for an offer.
	ErrNoInstance = errors.New("no instance is waiting")
	// ErrNoBrake is returned where the brake on mass replacement is not on.
	ErrNoBrake = errors.New("the brake on mass replacement is not on")
)

// ErrTooManyChanges refuses a change because as many wait already as may (Config.MaxChanges).
var ErrTooManyChanges = errors.New("too many changes are waiting")

// Change asks for another tree of definitions.
type Change struct {
	// Edit returns the edited tree, which is committed then. Its error is returned as it is. It is called under the lock,
	// so it may compute but not wait; nothing is changed when it fails.
	Edit func(v scheduler.View) (Edited, error)
	// Force cancels deployments that stand in the way.
	Force bool
	// Group is named in the event that tells of the change.
	Group app.PathID
	// Announce, if not nil, makes an event to be told before the change is, out of the new tree.
	Announce func(root *app.Group) event.Payload
	// DryRun finds the plan and changes nothing.
	DryRun bool
	// By is who asks for it, for the history of deployments; it may be empty.
	By     string
	undoes string // the deployment that is rolled back
}

// Edited is an edited tree.
type Edited struct {
	Root *app.Group
	// Restart names apps that are replaced though their definitions do not change.
	Restart []app.PathID
	// Kill names instances that go first where their app is scaled down.
	Kill map[app.PathID][]app.InstanceID
}

// Result is what came of a change.
type Result struct {
	// Plan is the deployment that has begun, or would; it may be empty. Root is the new tree.
	Plan *deployment.Plan
	Root *app.Group
}

// Change edits the tree of definitions and begins the deployment that follows from that. It returns when both are stored.
// Errors are those of Edit, *app.Invalid, *state.TooLarge, *scheduler.Locked, *scheduler.TooManyDeployments,
// ErrTooManyChanges, ErrNotReady, ErrNotStored and ErrStore; and ErrTermEnded and the cause of ctx, after which the change may or
// may not have been made.
func (m *Marathon) Change(ctx context.Context, c Change) (Result, error) {
	defer m.changing.Add(-1)
	if m.changing.Add(1) > int64(m.cfg.MaxChanges) {
		return Result{}, fmt.Errorf("%w: %d", ErrTooManyChanges, m.cfg.MaxChanges)
	}
	var result Result
	err := m.await(ctx, func(now time.Time) error {
		var err error
		result, err = m.change(now, c)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	return result, nil
}

// change runs in the loop, under the lock.
func (m *Marathon) change(now time.Time, c Change) (Result, error) {
	old := m.core.View().Root()
	edited, err := c.Edit(m.core.View())
	if err != nil {
		return Result{}, m.refused(c, err)
	}
	root, err := app.Commit(old, edited.Root, app.Change{Now: now, Settings: m.cfg.App, Restart: edited.Restart})
	if err != nil {
		return Result{}, m.refused(c, err)
	}
	plan := deployment.Diff(uuid.NewString(), old, root, edited.Kill)
	plan.Origin = deployment.Origin{Begun: app.At(now), By: c.By, Undoes: c.undoes}
	result := Result{Plan: plan, Root: root}
	if c.DryRun {
		return result, nil
	}
	if err := m.checkQuarantine(plan); err != nil {
		return Result{}, m.refused(c, err)
	}
	if root != old {
		size, err := m.state.Check(root, plan)
		if err != nil {
			return Result{}, m.refused(c, err)
		}
		m.batched += size
	}
	change := scheduler.Change{Root: root, Plan: plan, Force: c.Force, Group: c.Group}
	if c.Announce != nil {
		change.Announce = c.Announce(root)
	}
	if err := m.core.Deploy(now, change); err != nil {
		return Result{}, m.refused(c, err)
	}
	m.deployed.Add(1)
	return result, nil
}

// refused tells of a change that was refused.
func (m *Marathon) refused(c Change, err error) error {
	if c.DryRun {
		return err
	}
	version := app.At(m.cfg.Now())
	m.core.Announce(event.GroupChangeFailed{GroupID: string(c.Group), Version: version.String(), Reason: err.Error()})
	return err
}

// checkQuarantine refuses to touch what could not be read.
func (m *Marathon) checkQuarantine(plan *deployment.Plan) error {
	for _, id := range m.core.View().Quarantined() {
		if plan.Affects(id) {
			return &app.Invalid{Message: app.MessageObject, Details: []app.Detail{{
				Path:   "/id",
				Errors: []string{fmt.Sprintf("the stored definition of %s can't be read; it is left alone until the store is mended", id)},
			}}}
		}
	}
	return nil
}

// CancelDeployment ends a deployment and leaves everything as it is by then. by is who asks for it. It returns
// scheduler.ErrNoDeployment where none of that id runs.
func (m *Marathon) CancelDeployment(ctx context.Context, id, by string) error {
	return m.await(ctx, func(now time.Time) error { return m.core.Cancel(now, id, by) })
}

// RevertDeployment undoes a deployment by another one, which takes its place. by is who asks for it.
func (m *Marathon) RevertDeployment(ctx context.Context, id, by string) (Result, error) {
	var result Result
	err := m.await(ctx, func(now time.Time) error {
		d := m.core.View().Deployment(id)
		if d == nil {
			return fmt.Errorf("%w: %s", scheduler.ErrNoDeployment, id)
		}
		var err error
		result, err = m.change(now, Change{
			Edit:  func(v scheduler.View) (Edited, error) { return Edited{Root: d.Plan.Revert(v.Root())}, nil },
			Force: true, Group: app.Root, By: by, undoes: id,
		})
		return err
	})
	return result, err
}

// KillTasks ends the tasks of instances, which get new ones; with wipe the instances go as well and others take their place.
func (m *Marathon) KillTasks(ctx context.Context, ids []app.InstanceID, wipe bool) error {
	return m.await(ctx, func(now time.Time) error {
		m.core.KillTasks(now, scheduler.KillRequest{Instances: ids, Wipe: wipe})
		return nil
	})
}

// LiftBrake has everything that seems dead replaced, though it is most. It returns ErrNoBrake where nothing is held back.
func (m *Marathon) LiftBrake(ctx context.Context) error {
	return m.await(ctx, func(now time.Time) error {
		if !m.core.LiftBrake(now) {
			return ErrNoBrake
		}
		return nil
	})
}

// ResetDelay ends the backoff of an app. It returns ErrNoInstance if no instance of it waits.
func (m *Marathon) ResetDelay(ctx context.Context, id app.PathID) error {
	return m.await(ctx, func(time.Time) error {
		if !m.core.ResetDelay(id) {
			return fmt.Errorf("%w: %s", ErrNoInstance, id)
		}
		return nil
	})
}

// Abdicate gives leadership up: a moment later all state in memory is dropped, and another one leads, or this one again. What
// the next leader is to do before is stored when it returns. It returns ErrHandover where that is impossible.
func (m *Marathon) Abdicate(ctx context.Context, h Handover) error {
	h, err := h.byName(m.cfg.Backups)
	if err != nil {
		return err
	}
	m.mu.RLock()
	documents := m.documents
	m.mu.RUnlock()
	if documents == nil {
		return ErrNotReady
	}
	if err := h.leave(ctx, documents, m.cfg.Now()); err != nil {
		return fmt.Errorf("cannot leave a backup or restore to the next leader: %w", err)
	}
	return m.await(ctx, func(time.Time) error {
		select {
		case m.leaving <- struct{}{}:
		default: // somebody has asked already
		}
		return nil
	})
}

// Read lets look look at the state, which nothing changes meanwhile. It must not wait for anything, nor keep the view. What
// the view returns may be kept.
func (m *Marathon) Read(look func(v scheduler.View, now time.Time)) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.core == nil {
		return ErrNotReady
	}
	look(m.core.View(), m.cfg.Now())
	return nil
}

// stored returns the door to the store.
func (m *Marathon) stored() (*state.State, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.state == nil {
		return nil, ErrNotReady
	}
	return m.state, nil
}

// AppVersions returns the stored versions of an app, newest first.
func (m *Marathon) AppVersions(id app.PathID) ([]app.Timestamp, error) {
	st, err := m.stored()
	if err != nil {
		return nil, err
	}
	return st.Versions(id), nil
}

// AppVersion returns one version of an app. It returns state.ErrNoVersion where that is not kept.
func (m *Marathon) AppVersion(ctx context.Context, id app.PathID, v app.Timestamp) (*app.App, error) {
	st, err := m.stored()
	if err != nil {
		return nil, err
	}
	return st.App(ctx, id, v)
}

// TreeVersions returns the versions of the stored trees, newest first.
func (m *Marathon) TreeVersions() ([]app.Timestamp, error) {
	st, err := m.stored()
	if err != nil {
		return nil, err
	}
	return st.Trees(), nil
}

// TreeVersion returns one version of the whole tree. It returns state.ErrNoVersion where that is not kept.
func (m *Marathon) TreeVersion(ctx context.Context, v app.Timestamp) (*app.Group, error) {
	st, err := m.stored()
	if err != nil {
		return nil, err
	}
	return st.Tree(ctx, v)
}

// Events are what happens. Listeners that are too slow are cut off.
func (m *Marathon) Events() *event.Bus { return &m.events }

// Config returns the settings, which must not be modified.
func (m *Marathon) Config() Config { return m.cfg }

// Leader is the host:port of the leader, as far as is known, and of this one only once its state is loaded; else nothing.
func (m *Marathon) Leader() string { return m.Standing().Leader }

// MesosUI is a link to the user interface of the master, nothing when no master is known.
func (m *Marathon) MesosUI() string {
	if m.cfg.MesosUI != "" {
		return m.cfg.MesosUI
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.master.hostname == "" {
		return ""
	}
	return fmt.Sprintf("http://%s:%d/", m.master.hostname, m.master.port)
}

// MasterFlag is what the user gave as the master, without credentials.
func (m *Marathon) MasterFlag() string {
	text := m.cfg.MasterFlag
	if text == "" {
		text = strings.Join(slices.Clone(m.cfg.Masters), ",")
	}
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "", text
	} else {
		scheme += "://"
	}
	host, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = "xxx@" + host[at+1:]
	}
	if path != "" {
		host += "/" + path
	}
	return scheme + host
}
