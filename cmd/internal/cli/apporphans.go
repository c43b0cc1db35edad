package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"starling/cmd/internal/flags"
)

// appOrphans is "app orphans".
type appOrphans struct{ adopt, dismiss, all, settle, yes bool }

func (o *appOrphans) register(s *flags.Set) {
	s.BoolVar(&o.adopt, "adopt", false, "make the tasks instances of their apps again")
	s.BoolVar(&o.dismiss, "dismiss", false, "kill the tasks; data that they keep in volumes is destroyed then")
	s.BoolVar(&o.settle, "settle", false, "end the doubt after a restore: what no app has, or more than it wants, is killed from then on; asks first")
	s.BoolVar(&o.yes, "yes", false, "do not ask; short -y")
	s.Alias("yes", "y")
	s.BoolVar(&o.all, "all", false, "all of them, and not those that are named")
}

func (o *appOrphans) run(ctx context.Context, c *call) error {
	switch {
	case o.adopt && o.dismiss:
		return usagef("--adopt and --dismiss exclude each other")
	case o.settle && (o.adopt || o.dismiss || o.all || len(c.args) > 0):
		return usagef("--settle is about all that there is, and stands alone")
	case o.settle:
		return o.end(ctx, c)
	case !o.adopt && !o.dismiss && (o.all || len(c.args) > 0):
		return usagef("say --adopt or --dismiss")
	case !o.adopt && !o.dismiss:
		return o.list(ctx, c)
	case o.all == (len(c.args) > 0):
		return usagef("name tasks, or say --all")
	}
	body, err := json.Marshal(map[string]any{"ids": c.args, "all": o.all})
	if err != nil {
		return err
	}
	if o.dismiss {
		var answer struct{ Unknown []string }
		text, err := c.marathon.ask(ctx, http.MethodPost, "/v2/orphans/dismiss", body, &answer)
		switch {
		case err != nil:
			return err
		case c.print.json:
			return c.print.raw(text)
		}
		for _, id := range answer.Unknown {
			err = errors.Join(err, fmt.Errorf("%s is no orphan", id))
		}
		c.warnUnsettled(ctx)
		return err
	}
	var answer struct {
		Adopted []string
		Refused map[string]string
	}
	text, err := c.marathon.ask(ctx, http.MethodPost, "/v2/orphans/adopt", body, &answer)
	switch {
	case err != nil:
		return err
	case c.print.json:
		return c.print.raw(text)
	}
	for _, id := range answer.Adopted {
		if err := c.print.text(clean(id + " is adopted")); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(answer.Refused)) {
		err = errors.Join(err, fmt.Errorf("%s is not adopted: %s", id, answer.Refused[id]))
	}
	return err
}

func (o *appOrphans) list(ctx context.Context, c *call) error {
	answer, body, err := c.marathon.orphans(ctx)
	switch {
	case err != nil:
		return err
	case c.print.json:
		return c.print.raw(body)
	}
	if at := answer.RestoredAt; at != nil {
		if err := c.print.text("the state was restored from a backup at " + at.UTC().Format(time.RFC3339) + "; what it does not know is left alone until starling app orphans --settle"); err != nil {
			return err
		}
	}
	if len(answer.Orphans) == 0 {
		return c.print.text("there are no orphans")
	}
	var rows [][]string
	for _, one := range answer.Orphans {
		note := ""
		if !one.AppDefined {
			note = "no such app"
		}
		rows = append(rows, []string{one.ID, one.AppID, shortState(one.State), one.SlaveID, ago(max(0, time.Since(one.Since).Seconds())), note})
	}
	return c.print.table([]string{"TASK", "APP", "STATE", "AGENT", "SEEN", "NOTES"}, rows)
}

// orphanList is the answer of Marathon; one of others has no such endpoint.
type orphanList struct {
	Orphans []struct {
		ID, AppID, SlaveID, State string
		Since                     time.Time
		AppDefined                bool
	}
	// RestoredAt is when the state was restored; nil where it was not, or that is settled.
	RestoredAt *time.Time
}

func (m *marathon) orphans(ctx context.Context) (*orphanList, []byte, error) {
	var answer orphanList
	body, err := m.get(ctx, "/v2/orphans", &answer)
	return &answer, body, err
}

// warnUnsettled says that a backup was restored and nobody has settled it. What can't be told is no warning.
func (c *call) warnUnsettled(ctx context.Context) {
	list, _, err := c.marathon.orphans(ctx)
	if err != nil || list.RestoredAt == nil || c.print.json {
		return
	}
	fmt.Fprintf(c.io.Err, "the state was restored from a backup at %s, and nobody has settled that: tasks that it does not know are left alone (%d now); "+
		"starling app orphans lists them, and --settle ends it\n", list.RestoredAt.UTC().Format(time.RFC3339), len(list.Orphans))
}

// settled says that there is no doubt any more.
func (c *call) settled(text string) error {
	if c.print.json {
		return c.print.value(map[string]bool{"settled": true})
	}
	return c.print.text(text)
}

// end settles a restore.
func (o *appOrphans) end(ctx context.Context, c *call) error {
	list, _, err := c.marathon.orphans(ctx)
	switch {
	case err != nil:
		return err
	case list.RestoredAt == nil:
		return c.settled("there is nothing to settle")
	case !o.yes && !isTerminal(c.io.In):
		return usagef("there is no terminal to ask at; --yes settles without")
	case !o.yes:
		sure, err := c.ask(ctx, fmt.Sprintf("Settle? What no app has then, or more than it wants, is killed, with the data of such tasks: %d tasks are known to be that. [y/N] ", len(list.Orphans)))
		if err != nil {
			return err
		}
		if !sure {
			return errors.New("nothing was settled")
		}
	}
	if _, err := c.marathon.ask(ctx, http.MethodDelete, withQuery("/v2/leader", "settle", "true"), nil, nil); err != nil {
		return err
	}
	// The next leader does it: one that is alone takes over from itself.
	until := time.Now().Add(holdOut)
	for {
		list, _, err := c.marathon.orphans(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && list.RestoredAt == nil:
			return c.settled("it is settled: what no app has is killed from now on")
		case time.Now().After(until) && err != nil:
			return fmt.Errorf("the leader has handed over, and it can't be told whether the next one has settled it: %w", err)
		case time.Now().After(until):
			return errors.New("the leader has handed over, and the next one has not settled it; its log says why")
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
		}
	}
}
