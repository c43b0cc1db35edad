package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"starling/cmd/internal/flags"
)

// files is "task files".
type files struct {
	frameworkChoice
	get bool
}

func (f *files) register(s *flags.Set) {
	f.frameworkChoice.register(s)
	s.BoolVar(&f.get, "get", false, "print the file at PATH as it is")
}

// entry is a file, as agents tell of it.
type entry struct {
	Path, Mode, UID, GID string
	Size                 int64
	Time                 float64 `json:"mtime"`
}

func (f *files) run(ctx context.Context, c *call) error {
	within := "."
	if len(c.args) == 2 {
		within = c.args[1]
	}
	if f.get && len(c.args) < 2 {
		return usagef("--get needs the PATH of a file")
	}
	if clean := path.Clean("/" + within); clean != "/" {
		within = strings.TrimPrefix(clean, "/")
	} else {
		within = "."
	}
	t, err := f.task(ctx, c, c.args[0])
	if err != nil {
		return err
	}
	agent, err := c.agentOf(t)
	if err != nil {
		return err
	}
	var last error
	for _, dir := range sandboxes(t) {
		where := url.Values{"path": {path.Join(dir, within)}}.Encode()
		if f.get {
			last = download(ctx, agent, c.io.Out, where)
		} else {
			last = list(ctx, agent, c.print, dir, where)
		}
		if !isStatus(last, http.StatusNotFound) {
			return last
		}
	}
	return fmt.Errorf("task %q has no %q: %w", t.ID, within, last)
}

func download(ctx context.Context, agent *client, out io.Writer, where string) error {
	res, err := agent.do(ctx, http.MethodGet, "/files/download?"+where, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(out, res.Body); err != nil {
		return fmt.Errorf("cannot copy the file: %w", err)
	}
	return nil
}

func list(ctx context.Context, agent *client, p *printer, dir, where string) error {
	var entries []entry
	body, err := agent.get(ctx, "/files/browse?"+where, &entries)
	if err != nil {
		return err
	}
	if p.json {
		if !json.Valid(body) {
			return fmt.Errorf("%s does not answer as an agent does", agent.nodes[0])
		}
		return p.raw(body)
	}
	rows := make([][]string, 0, len(entries))
	for _, e := range entries {
		name := strings.TrimPrefix(strings.TrimPrefix(e.Path, dir), "/")
		if strings.HasPrefix(e.Mode, "d") {
			name += "/"
		}
		at := time.UnixMilli(int64(e.Time * 1000)).UTC().Format(time.RFC3339)
		rows = append(rows, []string{e.Mode, e.UID, e.GID, strconv.FormatInt(e.Size, 10), at, name})
	}
	return p.table([]string{"MODE", "USER", "GROUP", "SIZE", "MODIFIED", "NAME"}, rows)
}
