package containerizer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/master/mesos"
)

// Part is one of the containerizers of a [Composite].
type Part struct {
	// Name is what operators call it.
	Name string
	// Type is the type of container that it runs. One of type MESOS runs those that ask for no container, too.
	Type mesos.ContainerInfo_Type
	Containerizer
}

// Composite makes several containerizers one. The first part that runs its type launches a container, in the part that holds
// its parent if it has one; everything else goes to the part that has the container. A part that hangs or is degraded
// holds up its own containers alone.
//
// Parts may have methods beside those of Containerizer: Check(ctx) error tells whether it can do its work, Usable(info)
// error why a container of a kind that it runs can't be had here, without waiting for anything, Measure(out) adds its numbers
// by the names of Mesos, likewise, and Close() error ends it.
type Composite struct {
	parts []*part
	// exits is closed when all parts have closed theirs, or after Close.
	exits chan Exit
	// forwarding holds the goroutines that fill exits; closed ends them.
	forwarding sync.WaitGroup
	closed     chan struct{}
	close      sync.Once

	mu sync.Mutex
	// routes say which part has a container or a group.
	routes map[string]*part
}

type part struct {
	Part

	mu sync.Mutex
	// degraded is why it can't start containers; nil while it can.
	degraded error
	// checking is set while its Check is under way.
	checking bool
}

// checkPatience bounds how long a part may take to tell whether it can do its work.
const checkPatience = 2500 * time.Millisecond

// NewComposite joins containerizers that have not been recovered, in order of preference.
func NewComposite(parts ...Part) *Composite {
	c := &Composite{exits: make(chan Exit), closed: make(chan struct{}), routes: map[string]*part{}}
	for _, p := range parts {
		c.parts = append(c.parts, &part{Part: p})
	}
	return c
}

// Recover recovers all parts, side by side. The error is ErrDegraded, which says of which parts, where some are degraded;
// their containers are among the others. Any other error of a part is one of the whole: whether its containers run is not
// known then.
func (c *Composite) Recover(ctx context.Context) ([]Container, error) {
	found := make([][]Container, len(c.parts))
	errs := make([]error, len(c.parts))
	var recovering sync.WaitGroup
	for i, p := range c.parts {
		recovering.Go(func() {
			var groups []string
			found[i], errs[i] = p.Recover(ctx)
			if errs[i] == nil || errors.Is(errs[i], ErrDegraded) {
				p.degrade(errs[i])
				groups, _ = p.ListGroups(ctx) // what can't be listed is not asked for by its id
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, k := range found[i] {
				c.routes[k.ID] = p
			}
			for _, id := range groups {
				c.routes[id] = p
			}
		})
	}
	recovering.Wait()
	var degraded, failed []error
	for i, p := range c.parts {
		switch {
		case errs[i] == nil:
		case errors.Is(errs[i], ErrDegraded):
			degraded = append(degraded, fmt.Errorf("%s: %w", p.Name, errs[i]))
		default:
			failed = append(failed, fmt.Errorf("containerizer %s: %w", p.Name, errs[i]))
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	for _, p := range c.parts {
		c.forwarding.Go(func() { c.forward(p) })
	}
	go func() { c.forwarding.Wait(); close(c.exits) }()
	return slices.Concat(found...), errors.Join(degraded...)
}

// forward hands on the exits of a part until that closes them.
func (c *Composite) forward(p *part) {
	for exit := range p.Exits() {
		select {
		case c.exits <- exit:
		case <-c.closed:
			// The part goes on until it is closed, and nobody reads.
			return
		}
	}
}

// Close closes the parts that can be closed, and with them Exits.
func (c *Composite) Close() error {
	c.close.Do(func() { close(c.closed) })
	var faults []error
	for _, p := range c.parts {
		if closer, ok := p.Containerizer.(io.Closer); ok {
			faults = append(faults, closer.Close())
		}
	}
	return errors.Join(faults...)
}

// Check asks the parts whether they can do their work, and returns an error that is ErrDegraded and names those that can't,
// or do not answer in time. No part waits for another.
func (c *Composite) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	var asked sync.WaitGroup
	for _, p := range c.parts {
		asked.Go(func() { p.check(ctx) })
	}
	asked.Wait()
	var faults []error
	for _, p := range c.parts {
		if err := p.trouble(); err != nil {
			if !errors.Is(err, ErrDegraded) {
				err = fmt.Errorf("%w: %w", ErrDegraded, err)
			}
			faults = append(faults, fmt.Errorf("%s: %w", p.Name, err))
		}
	}
	return errors.Join(faults...)
}

// check asks one part, without waiting for longer than ctx lasts. One that was asked before and has not answered is not
// asked again.
func (p *part) check(ctx context.Context) {
	checker, ok := p.Containerizer.(interface {
		Check(ctx context.Context) error
	})
	if !ok {
		return
	}
	p.mu.Lock()
	if p.checking {
		p.mu.Unlock()
		return
	}
	p.checking = true
	p.mu.Unlock()
	answered := make(chan struct{})
	go func() { // it lasts as long as Check of the part, which obeys its context or is told below to hang
		defer close(answered)
		err := checker.Check(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.checking, p.degraded = false, err
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		p.degrade(fmt.Errorf("%w: no answer in time", ErrDegraded))
	}
}

func (p *part) degrade(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.degraded = err
}

func (p *part) trouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.degraded
}

// Usable returns nil, or why a container of this kind can't be launched now: there is no part for it, or that is degraded,
// or lacks what it asks for. It does not wait for anything.
func (c *Composite) Usable(info *mesos.ContainerInfo) error {
	p, err := c.choose(info)
	if err != nil {
		return err
	}
	if err := p.trouble(); err != nil {
		return err
	}
	if judge, ok := p.Containerizer.(interface {
		Usable(info *mesos.ContainerInfo) error
	}); ok {
		return judge.Usable(info)
	}
	return nil
}

// Measure adds the numbers of all parts, by the names of Mesos. It does not wait for anything.
func (c *Composite) Measure(out map[string]float64) {
	for _, p := range c.parts {
		if m, ok := p.Containerizer.(interface{ Measure(out map[string]float64) }); ok {
			m.Measure(out)
		}
	}
}

// choose returns the part for a kind of container.
func (c *Composite) choose(info *mesos.ContainerInfo) (*part, error) {
	kind := mesos.ContainerInfo_MESOS
	if info != nil {
		kind = info.GetType()
	}
	var names []string
	for _, p := range c.parts {
		if p.Type == kind {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return nil, fmt.Errorf("%w: %s (enabled: %s)", ErrType, kind, strings.Join(names, ", "))
}

// route returns the part that has a container or a group.
func (c *Composite) route(id string) (*part, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.routes[id]
	if !ok {
		return nil, fmt.Errorf("container %q: %w", id, ErrUnknownContainer)
	}
	return p, nil
}

// enter notes who is to have an id, and reports whether that was free; one that has it already may try again.
func (c *Composite) enter(id string, p *part) (fresh bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, taken := c.routes[id]; taken {
		if other != p {
			return false, fmt.Errorf("container %q: %w", id, ErrExists)
		}
		return false, nil
	}
	c.routes[id] = p
	return true, nil
}

func (c *Composite) leave(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.routes, id)
}

// Launch launches a container by the part of its parent, or else by the first that runs its type.
func (c *Composite) Launch(ctx context.Context, spec Spec) (Container, error) {
	p, err := c.choose(spec.Container)
	if spec.Parent != "" {
		var parent *part
		if parent, err = c.route(spec.Parent); err == nil && spec.Container != nil && spec.Container.GetType() != parent.Type {
			err = fmt.Errorf("%w: a container of type %s within one of type %s", ErrUnsupported, spec.Container.GetType(), parent.Type)
		}
		p = parent
	}
	if err != nil {
		return Container{}, err
	}
	fresh, err := c.enter(spec.ID, p)
	if err != nil {
		return Container{}, err
	}
	container, err := p.Launch(ctx, spec)
	if err != nil && fresh && ctx.Err() == nil {
		// After a launch that was cut off there may be something to be destroyed.
		c.leave(spec.ID)
	}
	return container, err
}

// Signal goes to the part that has the container.
func (c *Composite) Signal(ctx context.Context, id string, signal int) error {
	p, err := c.route(id)
	if err != nil {
		return err
	}
	return p.Signal(ctx, id, signal)
}

// Destroy goes to the part that has the container.
func (c *Composite) Destroy(ctx context.Context, id string) error {
	p, err := c.route(id)
	if err != nil {
		return err
	}
	return p.Destroy(ctx, id)
}

// Exits delivers the exits of all parts.
func (c *Composite) Exits() <-chan Exit { return c.exits }

// Remove goes to the part that has the container, and forgets that it has.
func (c *Composite) Remove(ctx context.Context, id string) error {
	p, err := c.route(id)
	if err != nil {
		return nil
	}
	if err := p.Remove(ctx, id); err != nil && !errors.Is(err, ErrUnknownContainer) {
		return err
	}
	c.leave(id)
	return nil
}

// Usage goes to the part that has the container.
func (c *Composite) Usage(ctx context.Context, id string) (Usage, error) {
	p, err := c.route(id)
	if err != nil {
		return Usage{}, err
	}
	return p.Usage(ctx, id)
}

// Resize goes to the part that has the container or the group.
func (c *Composite) Resize(ctx context.Context, id string, limits Limits) error {
	p, err := c.route(id)
	if err != nil {
		return err
	}
	return p.Resize(ctx, id, limits)
}

// OpenGroup opens a group in the part that runs its type of container.
func (c *Composite) OpenGroup(ctx context.Context, group Group) ([]*mesos.NetworkInfo, error) {
	p, err := c.choose(group.Container)
	if err != nil {
		return nil, err
	}
	fresh, err := c.enter(group.ID, p)
	if err != nil {
		return nil, err
	}
	networks, err := p.OpenGroup(ctx, group)
	if err != nil && fresh && ctx.Err() == nil {
		c.leave(group.ID)
	}
	return networks, err
}

// CloseGroup goes to the part that has the group.
func (c *Composite) CloseGroup(ctx context.Context, id string) error {
	p, err := c.route(id)
	if err != nil {
		return nil
	}
	if err := p.CloseGroup(ctx, id); err != nil {
		return err
	}
	c.leave(id)
	return nil
}

// ListGroups lists the groups of all parts that can tell; the error is of those that can't.
func (c *Composite) ListGroups(ctx context.Context) ([]string, error) {
	var all []string
	var faults []error
	for _, p := range c.parts {
		ids, err := p.ListGroups(ctx)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", p.Name, err))
		}
		all = append(all, ids...)
	}
	return all, errors.Join(faults...)
}

// Exec goes to the part that has the container.
func (c *Composite) Exec(ctx context.Context, id string, process Process) (Session, error) {
	p, err := c.route(id)
	if err != nil {
		return nil, err
	}
	return p.Exec(ctx, id, process)
}

// Attach goes to the part that has the container.
func (c *Composite) Attach(ctx context.Context, id string) (Session, error) {
	p, err := c.route(id)
	if err != nil {
		return nil, err
	}
	return p.Attach(ctx, id)
}
