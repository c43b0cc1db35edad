package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
)

// patience is how long the supervisor may take to answer before something is done without it.
const patience = 2 * time.Second

// connect finds or starts the supervisor and has it tell of exits.
func (c *Containerizer) connect(ctx context.Context) (*supervisor.Client, []supervisor.Container, error) {
	// The last supervisor may have taken its cgroups with it; one that is started has to find them.
	if _, err := c.tree.Supervisor(); err != nil {
		c.log.Warn("supervisor gets no cgroup of its own", "err", err)
	}
	client, err := c.current(ctx)
	if err != nil {
		return nil, nil, err
	}
	found, err := client.Watch(ctx, c.ended)
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("cannot watch containers: %w", err)
	}
	return client, found, nil
}

// current finds or starts the supervisor, and has one that runs another program than the one that would be started now become
// that, once a life: its containers notice nothing. One that can't is used as it is.
func (c *Containerizer) current(ctx context.Context) (*supervisor.Client, error) {
	client, err := supervisor.Ensure(ctx, c.ensure)
	if err != nil || c.upgraded {
		return client, err
	}
	hello, err := client.Hello(ctx)
	if err != nil {
		client.Close()
		return nil, err
	}
	ours := supervisor.Build(c.ensure.Command[0])
	if ours == "" || hello.Build == ours {
		return client, nil
	}
	c.upgraded = true
	if err := client.Upgrade(ctx, c.ensure.Command); err != nil {
		c.log.Warn("supervisor goes on with another program than this agent's", "pid", hello.PID, "err", err)
	} else {
		c.log.Info("supervisor became this agent's program", "pid", hello.PID, "running", hello.Running)
	}
	client.Close()
	return supervisor.Ensure(ctx, c.ensure)
}

// recoverPatience is the default of Config.RecoverWithin. It is short
// enough for an agent to be there again within five seconds, and long enough to start one on a busy machine.
const recoverPatience = 3 * time.Second

// afterthought is how long a supervisor that was there before may take to begin what an agent asked for that died at this
// moment. What comes later than that is ended (lookAgain).
const afterthought = 200 * time.Millisecond

// connectSoon is connect for the start of a life. When the time is up and nobody has answered, it returns no client, what
// the records say, and an error that is containerizer.ErrDegraded.
func (c *Containerizer) connectSoon(ctx context.Context) (*supervisor.Client, []supervisor.Container, error) {
	soon, cancel := context.WithTimeout(ctx, c.cfg.RecoverWithin)
	defer cancel()
	_, absent := os.Stat(filepath.Join(c.cfg.Dir, "supervisor.sock"))
	client, found, err := c.connect(soon)
	if err == nil && absent == nil {
		// The last order of the life before may be under way: what it starts is to be found, not told to be lost.
		select {
		case <-time.After(afterthought):
		case <-soon.Done():
		}
		if later, again := client.Watch(soon, c.ended); again == nil {
			found = later
		}
	}
	if err == nil || soon.Err() == nil || ctx.Err() != nil {
		return client, found, err
	}
	found, readErr := supervisor.Read(c.cfg.Dir)
	if readErr != nil {
		return nil, nil, errors.Join(err, readErr)
	}
	return nil, found, fmt.Errorf("%w: %w", containerizer.ErrDegraded, err)
}

// keepConnected owns the connection until the end; client is nil where there is none yet.
func (c *Containerizer) keepConnected(client *supervisor.Client, found []supervisor.Container) {
	for {
		if client == nil {
			if client, found = c.reconnect(); client == nil {
				return
			}
			c.log.Info("connected to the supervisor again", "containers", len(found))
		}
		// Compare first: nothing can be launched or removed before the connection is there for all.
		c.compare(found)
		c.mu.Lock()
		c.client = client
		close(c.online)
		c.mu.Unlock()
		mine := client
		c.wg.Go(func() { c.lookAgain(mine) })
		select {
		case <-client.Done():
		case <-c.life.Done():
		}
		c.mu.Lock()
		c.client = nil
		c.online = make(chan struct{})
		ending := c.ending
		c.mu.Unlock()
		client.Close()
		if ending || c.life.Err() != nil {
			return
		}
		c.log.Warn("connection to the supervisor broke")
		client = nil
	}
}

// reconnect tries until it succeeds, or life ends. Then it returns nil.
func (c *Containerizer) reconnect() (*supervisor.Client, []supervisor.Container) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		ctx, cancel := context.WithTimeout(c.life, 10*time.Second)
		client, found, err := c.connect(ctx)
		cancel()
		if err == nil {
			return client, found
		}
		if c.life.Err() != nil {
			return nil, nil
		}
		c.log.Error("cannot connect to the supervisor", "err", err)
		select {
		case <-c.life.Done():
			return nil, nil
		case <-time.After(pause):
		}
	}
}

// compare brings our books and those of the supervisor together after a connect.
func (c *Containerizer) compare(found []supervisor.Container) {
	theirs := make(map[string]bool, len(found))
	for _, k := range found {
		theirs[k.ID] = true
		c.mu.Lock()
		_, ours := c.entries[k.ID]
		c.mu.Unlock()
		switch {
		case !ours:
			c.expel(k)
		case k.Exit != nil:
			c.ended(k)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range c.entries {
		if theirs[id] || e.told || !e.isReady() {
			continue
		}
		// Its record was lost, by somebody's hand. Nobody would watch the process any more.
		c.log.Error("supervisor has lost a container", "container_id", id)
		k := e.known
		c.wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.life, 10*time.Second)
			defer cancel()
			if err := supervisor.KillProcesses(ctx, c.cfg.Dir, k); err != nil {
				c.log.Error("cannot end the processes of a lost container", "container_id", id, "err", err)
			}
			k.Exit = &supervisor.Exit{At: time.Now()}
			c.ended(k)
		})
	}
}

// expel ends a container that is not in our books: a launch that was given up while the connection was broken, or a removal.
func (c *Containerizer) expel(k supervisor.Container) {
	c.log.Warn("unknown container is ended", "container_id", k.ID)
	c.wg.Go(func() { c.abandon(k.ID, k.Cgroups) })
}

// settleTime is how long a supervisor may take to come to what was asked of it over a connection that is no more.
const settleTime = 2 * time.Second

// lookAgain looks, a while after a connect, whether containers have come up that nobody wants any more: the order of an
// earlier connection, or of an earlier life of the agent, may have waited in the socket of a supervisor that hung, while
// its task was told to be lost.
func (c *Containerizer) lookAgain(client *supervisor.Client) {
	select {
	case <-time.After(settleTime):
	case <-client.Done():
		return
	case <-c.life.Done():
		return
	}
	ctx, cancel := context.WithTimeout(c.life, 10*time.Second)
	defer cancel()
	found, err := client.Watch(ctx, c.ended)
	if err != nil {
		// What hangs again is seen to when it breaks or answers.
		return
	}
	for _, k := range found {
		c.mu.Lock()
		_, ours := c.entries[k.ID]
		c.mu.Unlock()
		if !ours {
			c.expel(k)
		}
	}
}

func (e *entry) isReady() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

// ended takes note of an exit, and queues it the first time. It does not block.
func (c *Containerizer) ended(k supervisor.Container) {
	if k.Exit == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[k.ID]
	if !ok || e.told {
		return
	}
	if !e.isReady() {
		e.known.Exit = k.Exit
		return
	}
	c.tellLocked(e, *k.Exit)
}

// tellLocked queues the exit of e. Where the supervisor does not know the status, our own handle may. Called with mu
// held.
func (c *Containerizer) tellLocked(e *entry, exit supervisor.Exit) {
	if !exit.Known && e.handle != nil {
		if status, known, ended := e.handle.Exit(); ended && known {
			exit.Known, exit.Status, exit.OOM = true, status, supervisor.OOMKilled(e.known.Cgroups, status)
			client, id := c.client, e.known.ID
			c.wg.Go(func() { c.amend(client, id, exit) })
		}
	}
	e.known.Exit = &exit
	e.told = true
	c.releaseLocked(e)
	c.queue = append(c.queue, outsideExit(e.known))
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// amend gives the supervisor a status that only we could learn, for the next life of the agent. It may fail: then that
// life knows less.
func (c *Containerizer) amend(client *supervisor.Client, id string, exit supervisor.Exit) {
	ctx, cancel := context.WithTimeout(c.life, 10*time.Second)
	defer cancel()
	var err error
	if client == nil {
		client, err = c.await(ctx)
	}
	if err == nil {
		_, err = client.Amend(ctx, id, exit)
	}
	if err != nil && !errors.Is(err, supervisor.ErrUnknown) && c.life.Err() == nil {
		c.log.Warn("cannot complete the record of an exit", "container_id", id, "err", err)
	}
}

// pump hands the queue to whoever reads Exits, and closes that at the end.
func (c *Containerizer) pump() {
	defer close(c.exits)
	for {
		c.mu.Lock()
		var batch []containerizer.Exit
		batch, c.queue = c.queue, nil
		c.mu.Unlock()
		for _, exit := range batch {
			select {
			case c.exits <- exit:
			case <-c.life.Done():
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-c.more:
		case <-c.life.Done():
			return
		}
	}
}

// ask has something asked of the supervisor, and of the next one where the connection ended before the answer: one without
// work may end at any time, and is followed by another when there is some.
func (c *Containerizer) ask(ctx context.Context, question func(*supervisor.Client) error) error {
	for {
		client, err := c.await(ctx)
		if err != nil {
			return err
		}
		if err = question(client); err == nil || !errors.Is(err, supervisor.ErrDisconnected) || ctx.Err() != nil {
			return err
		}
		// The client may not have been taken off the books yet.
		select {
		case <-client.Done():
		case <-ctx.Done():
		}
	}
}

// await returns the connection, as soon as there is one.
func (c *Containerizer) await(ctx context.Context) (*supervisor.Client, error) {
	if c.life == nil {
		return nil, errors.New("containerizer is not recovered")
	}
	for {
		c.mu.Lock()
		client, online := c.client, c.online
		c.mu.Unlock()
		if client != nil {
			return client, nil
		}
		select {
		case <-online:
		case <-ctx.Done():
			return nil, fmt.Errorf("no supervisor: %w", ctx.Err())
		case <-c.life.Done():
			return nil, errors.New("containerizer is closed")
		}
	}
}
