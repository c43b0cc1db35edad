package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"starling/cmd/internal/flags"
)

func (p *waitFlags) scale(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(c.args[1], 10, 31)
	if err != nil {
		return usagef("%q is not a number of instances", c.args[1])
	}
	done := fmt.Sprintf("%s has %s", id, instances(int(n)))
	if n == 1 { // the only number that a daemon app takes
		if a, _, err := c.marathon.app(ctx, id); err == nil && a.Starling.Daemon {
			done = id + " runs on every node that fits"
		}
	}
	return p.instances(ctx, c, id, int(n), done)
}

func (p *waitFlags) suspend(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	return p.instances(ctx, c, id, 0, id+" is suspended")
}

// instances sets the number of instances. An app that is not there is not made.
func (p *waitFlags) instances(ctx context.Context, c *call, id string, n int, done string) error {
	pod, err := c.marathon.isPod(ctx, id)
	if err != nil {
		return err
	}
	if pod {
		return p.podInstances(ctx, c, id, n, done)
	}
	return p.change(ctx, c, done, http.MethodPatch, appPath(id, "", "force", fmt.Sprint(p.force)), []byte(fmt.Sprintf(`{"instances":%d}`, n)))
}

func (p *waitFlags) restart(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	pod, err := c.marathon.isPod(ctx, id)
	if err != nil {
		return err
	}
	if pod {
		return p.change(ctx, c, id+" is restarted", http.MethodPost, podPath(id, "::restart", "force", fmt.Sprint(p.force)), nil)
	}
	return p.change(ctx, c, id+" is restarted", http.MethodPost, appPath(id, "/restart", "force", fmt.Sprint(p.force)), nil)
}

// appRemove is "app rm".
type appRemove struct {
	waitFlags
	yes bool
}

func (r *appRemove) register(s *flags.Set) {
	r.waitFlags.register(s)
	s.BoolVar(&r.yes, "yes", false, "do not ask; short -y")
	s.Alias("yes", "y")
}

func (r *appRemove) run(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	if !r.yes {
		a, _, err := c.marathon.app(ctx, id)
		if err != nil {
			return err
		}
		if !isTerminal(c.io.In) {
			return usagef("there is no terminal to ask at; --yes removes %s without", id)
		}
		sure, err := c.ask(ctx, a.removeQuestion())
		if err != nil {
			return err
		}
		if !sure {
			return errors.New("nothing was removed")
		}
	}
	pod, err := c.marathon.isPod(ctx, id)
	if err != nil {
		return err
	}
	if pod {
		return r.change(ctx, c, id+" is removed", http.MethodDelete, podPath(id, "", "force", fmt.Sprint(r.force)), nil)
	}
	return r.change(ctx, c, id+" is removed", http.MethodDelete, appPath(id, "", "force", fmt.Sprint(r.force)), nil)
}

// removeQuestion says what goes with an app.
func (a *appStatus) removeQuestion() string {
	if data := a.dataText(); data != "" {
		return fmt.Sprintf("Remove %s, with its %s, its history, and for good the data of all its instances: %s? [y/N] ", a.ID, instances(a.Instances), data)
	}
	return fmt.Sprintf("Remove %s, with its %s and its history? [y/N] ", a.ID, instances(a.Instances))
}

// ask asks the user for a yes. What is no answer is none.
func (c *call) ask(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(c.io.Err, clean(question))
	answer := make(chan string, 1)
	// It ends with the line, or with this program: reading a terminal cannot be interrupted.
	go func() {
		line, err := bufio.NewReader(io.LimitReader(c.io.In, 1<<10)).ReadString('\n')
		if err != nil && line == "" {
			line = "no"
		}
		answer <- line
	}()
	select {
	case line := <-answer:
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(c.io.Err)
		return false, ctx.Err()
	}
}
