package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/clusterkey"
	"starling/cmd/internal/flags"
	"starling/gossip/api"
	"starling/gossip/keyring"
)

func keys(ctx context.Context, c *call) error {
	var k api.Keys
	body, err := c.client.get(ctx, api.PathKeys, &k)
	switch {
	case err != nil:
		return err
	case c.print.json:
		return c.print.raw(body)
	}
	rows := make([][]string, 0, len(k.Nodes))
	for _, n := range k.Nodes {
		also := ""
		if len(n.Installed) > 1 {
			also = strings.Join(n.Installed[1:], " ")
		}
		rows = append(rows, []string{n.Name, n.State, strconv.FormatUint(n.Serial, 10), n.Primary, also})
	}
	if err := c.print.table([]string{"NAME", "STATE", "STEP", "SENDS WITH", "ALSO ACCEPTS"}, rows); err != nil {
		return err
	}
	if !k.Encrypted {
		return c.print.text("\nThe node that was asked has no key: nothing in its mesh is encrypted.")
	}
	if r := k.Rotation; r != nil {
		return c.print.text("\nThe last rotation from this node, to " + clean(r.Target) + ": " + clean(progress(r)))
	}
	return nil
}

// progress says how far a rotation is.
func progress(r *api.Rotation) string {
	text := fmt.Sprintf("%s: %d of %d nodes", r.Phase, r.Acknowledged, r.Nodes)
	if r.Phase == "" {
		text = "begins"
	}
	switch {
	case r.Error != "":
		return text + "; stopped: " + r.Error
	case !r.Running:
		return text + "; done"
	case len(r.Waiting) > 0:
		text += ", waiting for " + strings.Join(r.Waiting[:min(len(r.Waiting), maxNamed)], ", ")
		if more := len(r.Waiting) - maxNamed; more > 0 {
			text += fmt.Sprintf(" and %d others", more)
		}
	}
	return text
}

// maxNamed is how many nodes are named that are waited for.
const maxNamed = 5

// rotation is "rotate-key" with its flags.
type rotation struct {
	oldFile, newFile flags.Path
	cluster          string
	abandon          bool
}

func (r *rotation) register(s *flags.Set) {
	r.cluster = "starling"
	s.Var(&r.oldFile, "cluster-key-file", "the `file` with the key that the cluster has now")
	s.Var(&r.newFile, "new-key-file", "the `file` with the key that it is to have, made by starling keygen")
	s.StringVar(&r.cluster, "cluster", r.cluster, "the cluster's `name`")
	s.BoolVar(&r.abandon, "abandon", false, "go on without nodes that cannot be reached: they need the new key file to come back")
}

const (
	// followEvery is how often the progress is asked for, followFor how long the node may be silent meanwhile.
	followEvery = 150 * time.Millisecond
	followFor   = 10 * time.Second
)

func (r *rotation) run(ctx context.Context, c *call) error {
	if r.oldFile == "" || r.newFile == "" {
		return usagef("--cluster-key-file and --new-key-file are both needed")
	}
	current, err := clusterkey.Read("cluster-key-file", string(r.oldFile))
	if err != nil {
		return err
	}
	next, err := clusterkey.Read("new-key-file", string(r.newFile))
	if err != nil {
		return err
	}
	if err := clusterkey.Private(string(r.newFile)); err != nil {
		return fmt.Errorf("not taken as the cluster's key: %w", err)
	}
	if bytes.Equal(current, next) {
		return usagef("--cluster-key-file and --new-key-file hold the same key")
	}
	err = r.start(ctx, c.client, current, next)
	if refused, ok := errors.AsType[*refusal](err); ok && refused.status == http.StatusForbidden {
		// An earlier run may have come so far that the node knows the new key alone.
		if r.start(ctx, c.client, next, next) == nil {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return r.follow(ctx, c, next.Fingerprint())
}

// start asks for the rotation, with a request that is sealed with one of the keys.
func (r *rotation) start(ctx context.Context, c *client, seal, next keyring.Secret) error {
	var k api.Keys
	if _, err := c.get(ctx, api.PathKeys, &k); err != nil {
		return err
	}
	body, err := json.Marshal(api.RotationRequest{
		Request: keyring.Seal(seal, r.cluster, k.Challenge, keyring.Request{Next: next, Abandon: r.abandon}),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	res, err := c.do(ctx, http.MethodPost, api.PathKeys, body)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// follow prints the progress until the rotation has ended.
func (r *rotation) follow(ctx context.Context, c *call, target string) error {
	last, heard := "", time.Now()
	for {
		var k api.Keys
		_, err := c.client.get(ctx, api.PathKeys, &k)
		switch v := k.Rotation; {
		case ctx.Err() != nil:
			return errors.New("interrupted; the node goes on with the rotation, and starling mesh keys shows how far it is")
		case err != nil && time.Since(heard) > followFor:
			return fmt.Errorf("cannot follow the rotation: %w; run the command again to finish it", err)
		case err != nil:
		case v == nil || v.Target != target:
			return errors.New("the node knows nothing of the rotation any more, as if it had been restarted; run the command again to finish it")
		default:
			heard = time.Now()
			if now := progress(v); now != last && v.Error == "" {
				last = now
				if err := r.tell(c.print, v, now); err != nil {
					return err
				}
			}
			switch {
			case v.Error != "" && len(v.Waiting) > 0:
				return errors.New(v.Error + "; the same command goes on when they are back, with --abandon without those that cannot be reached")
			case v.Error != "":
				return errors.New(v.Error)
			}
			if !v.Running {
				return nil
			}
		}
		select {
		case <-time.After(followEvery):
		case <-ctx.Done():
		}
	}
}

func (r *rotation) tell(p *printer, v *api.Rotation, text string) error {
	if p.json {
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return p.text(plainJSON(string(line)))
	}
	if !v.Running {
		text += fmt.Sprintf(": all nodes use %s alone; nodes that join from now on need %s", v.Target, r.newFile)
	}
	return p.text(clean(text))
}
