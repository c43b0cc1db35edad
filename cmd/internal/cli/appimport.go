package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon/app"
	"starling/marathon/deployment"
)

const (
	// importApps and importBytes bound what is sent in one request: far below what Marathon takes, so that a request is never the
	// whole of an import.
	importApps  = 100
	importBytes = 2 << 20
)

// appImport is "app import".
type appImport struct {
	waitFlags
	dryRun, suspended, replace, keep, lossy bool
	auth                                    string
}

func (p *appImport) register(s *flags.Set) {
	p.waitFlags.register(s)
	s.BoolVar(&p.dryRun, "dry-run", false, "show what would be taken over, and change nothing")
	s.BoolVar(&p.suspended, "suspended", false, "take definitions over without instances, for \"app scale\" to start one after the other; what is there already keeps its number")
	s.BoolVar(&p.replace, "replace", false, "change apps that are there with another definition, too; else they are refused")
	s.BoolVar(&p.keep, "keep", false, "leave apps as they are that are there with another definition; else they are refused")
	s.BoolVar(&p.lossy, "drop-unknown", false, "leave out fields that mean nothing here; else they are refused")
	s.StringVar(&p.auth, "source-auth", "", "`user:password` for the other Marathon, where its URL has none; better set by STARLING_SOURCE_AUTH")
}

// importPlan is what an import does.
type importPlan struct {
	Changes   []plannedChange `json:"changes"`
	Groups    []foreignGroup  `json:"groups,omitempty"`
	Unchanged int             `json:"unchanged"`
	Notes     []string        `json:"notes,omitempty"`
	// Problems are why nothing is done: what is there already, and is another.
	Problems []string `json:"problems,omitempty"`
	// Deployments are those that were begun, and how they ended; none for a dry run.
	Deployments []deploymentEnd `json:"deployments,omitempty"`

	runs []foreignRun // to be sent, what others depend on first
	has  map[app.PathID]bool
}

// run takes apps, pods and groups of another Marathon over. What is there already is left alone, so one that was interrupted is
// completed by another.
func (p *appImport) run(ctx context.Context, c *call) error {
	if p.timeout < 0 {
		return usagef("--timeout %v is negative", p.timeout)
	}
	if p.keep && p.replace {
		return usagef("--keep and --replace exclude each other")
	}
	source, err := readForeign(ctx, c, c.args[0], p.auth)
	if err != nil {
		return err
	}
	root, settings, err := c.marathon.tree(ctx)
	if err != nil {
		return err
	}
	steps, err := p.plan(source, root, settings)
	if err != nil {
		if steps != nil && p.dryRun {
			return errors.Join(steps.said(c), err)
		}
		return err
	}
	if !c.print.json {
		if err := steps.print(c.print); err != nil {
			return err
		}
	}
	if p.dryRun {
		return steps.said(c)
	}
	err = p.carryOut(ctx, c, steps)
	return errors.Join(err, steps.said(c))
}

// said tells programs what was done.
func (t *importPlan) said(c *call) error {
	if !c.print.json {
		return nil
	}
	return c.print.value(t)
}

// plan finds what there is to do; with an error, what there would be if it were not for what is there already. The error lists all that can't be taken over, each by its path.
func (p *appImport) plan(source *foreign, root *app.Group, settings app.Settings) (*importPlan, error) {
	steps := &importPlan{Changes: []plannedChange{}, Notes: source.notes, has: map[app.PathID]bool{}}
	problems := slices.Clone(source.problems)
	wanted := root
	for i := range source.runs {
		r := &source.runs[i]
		if steps.has[r.id] {
			problems = append(problems, fmt.Sprintf("%s: is there twice", r.id))
			continue
		}
		steps.has[r.id] = true
		if p.suspended {
			r.suspend(root)
		}
		def, faults := p.convert(r, wanted, settings, steps)
		for _, fault := range faults {
			problems = append(problems, fmt.Sprintf("%s: %s", r.id, fault))
		}
		if def != nil {
			wanted = wanted.WithApp(def)
		}
	}
	if len(problems) > 0 {
		return nil, &marathonRefusal{message: "what can't be taken over (nothing was changed):", details: problems}
	}
	next, err := app.Commit(root, wanted, app.Change{Now: time.Now(), Settings: settings})
	if err != nil {
		return nil, refusedHere(err)
	}
	changed := map[app.PathID]bool{}
	for _, change := range deployment.Diff("", root, next, nil).Changes {
		planned, err := plannedOf(change)
		if err != nil {
			return nil, err
		}
		if planned.Action != "create" && p.keep {
			steps.Notes = append(steps.Notes, fmt.Sprintf("%s: is there already with another definition, and is left as it is", change.ID))
			continue
		}
		if planned.Action != "create" && !p.replace {
			problems = append(problems, fmt.Sprintf("%s: is there already, and is another: %s", change.ID, planned.text()))
			for _, f := range planned.Fields {
				problems = append(problems, "  "+f.text())
			}
		}
		changed[change.ID] = true
		steps.Changes = append(steps.Changes, planned)
	}
	if len(problems) > 0 {
		steps.Problems = problems
		return steps, &marathonRefusal{
			message: "some are there already with another definition; --replace changes them, --keep leaves them as they are (nothing was changed):", details: problems,
		}
	}
	for _, r := range source.inOrder() {
		if changed[r.id] {
			steps.runs = append(steps.runs, r)
		}
	}
	steps.Unchanged = len(source.runs) - len(steps.runs)
	for _, g := range source.groups {
		if g.differs(root) {
			steps.Groups = append(steps.Groups, g)
		}
	}
	return steps, nil
}

// suspend takes the instances away; what is there already keeps those that it has.
func (r *foreignRun) suspend(root *app.Group) {
	n := 0
	if old := root.Spec(r.id); old != nil {
		n = old.Instances
	}
	if r.pod {
		r.body["scaling"] = json.RawMessage(fmt.Sprintf(`{"kind":"fixed","instances":%d}`, n))
		return
	}
	r.body["instances"] = json.RawMessage(fmt.Sprint(n))
}

// convert makes the definition that Marathon would make, and lists what is wrong with it.
func (p *appImport) convert(r *foreignRun, root *app.Group, settings app.Settings, steps *importPlan) (*app.App, []string) {
	body, err := json.Marshal(r.body)
	if err != nil {
		return nil, []string{err.Error()}
	}
	unknown, rules, old := app.UnknownFields, root.RulesFor(r.id, settings), root.Spec(r.id)
	if r.pod {
		unknown = app.UnknownPodFields
	}
	var faults []string
	fields, err := unknown(body)
	if err != nil {
		return nil, []string{err.Error()}
	}
	for _, f := range fields {
		if p.lossy {
			steps.Notes = append(steps.Notes, fmt.Sprintf("%s: %s is left out: it means nothing here", r.id, f))
			continue
		}
		faults = append(faults, f+": means nothing here; --drop-unknown leaves it out")
	}
	var def *app.App
	switch {
	case old != nil && (old.Pod != nil) != r.pod:
		return nil, append(faults, "/id: is the id of an app at one place and of a pod at the other")
	case r.pod:
		var draft *app.PodDraft
		if draft, err = app.ParsePod(body); err == nil {
			def, err = draft.Create(r.id, old, rules)
		}
	default:
		var draft *app.Draft
		if draft, err = app.ParseApp(body); err == nil && old != nil {
			def, err = draft.Replace(old, rules)
		} else if err == nil {
			def, err = draft.Create(r.id, rules)
		}
	}
	if err == nil {
		return def, faults
	}
	if refused, ok := errors.AsType[*marathonRefusal](refusedHere(err)); ok && len(refused.details) > 0 {
		return nil, append(faults, refused.details...)
	}
	return nil, append(faults, err.Error())
}

// inOrder lists what others depend on before those. Where they depend on each other in a circle any order does: it is refused.
func (f *foreign) inOrder() []foreignRun {
	index := make(map[app.PathID]int, len(f.runs))
	for i, r := range f.runs {
		index[r.id] = i
	}
	done := make([]bool, len(f.runs))
	var out []foreignRun
	var visit func(i int)
	visit = func(i int) {
		if done[i] {
			return
		}
		done[i] = true
		for _, d := range f.runs[i].deps {
			if at, ok := index[d]; ok {
				visit(at)
			}
		}
		out = append(out, f.runs[i])
	}
	for i := range f.runs {
		visit(i)
	}
	return out
}

// differs tells whether a group has something to say that is not there.
func (g *foreignGroup) differs(root *app.Group) bool {
	old := root.Group(g.ID)
	switch {
	case old == nil:
		return g.empty || len(g.Dependencies) > 0 || g.EnforceRole != nil
	case len(g.Dependencies) > 0 && !slices.Equal(slices.Sorted(slices.Values(g.Dependencies)), slices.Sorted(slices.Values(old.Dependencies))):
		return true
	}
	return g.EnforceRole != nil && *g.EnforceRole && (old.EnforceRole == nil || !*old.EnforceRole)
}

func (t *importPlan) print(to *printer) error {
	for _, n := range t.Notes {
		if err := to.text(clean("note: " + n)); err != nil {
			return err
		}
	}
	width := 0
	for _, c := range t.Changes {
		width = max(width, len(c.ID))
	}
	for _, c := range t.Changes {
		if err := to.text(clean(fmt.Sprintf("%-*s  %s", width, c.ID, c.text()))); err != nil {
			return err
		}
	}
	for _, g := range t.Groups {
		if err := to.text(clean("group " + string(g.ID) + g.text())); err != nil {
			return err
		}
	}
	return to.text(fmt.Sprintf("%d to take over, %d there already, %d groups to set", len(t.runs), t.Unchanged, len(t.Groups)))
}

func (g *foreignGroup) text() string {
	var parts []string
	for _, d := range g.Dependencies {
		parts = append(parts, "needs "+string(d))
	}
	if g.EnforceRole != nil && *g.EnforceRole {
		parts = append(parts, "enforces its role")
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// carryOut sends all that is to be done, and waits for what follows from it.
func (p *appImport) carryOut(ctx context.Context, c *call, steps *importPlan) error {
	var ends *endings
	if !p.detach {
		ends = c.marathon.listen(ctx)
		defer ends.close()
	}
	var begun []deploymentResult
	send := func(method, path string, body []byte) error {
		var result deploymentResult
		if _, err := c.marathon.ask(ctx, method, path, body, &result); err != nil {
			return err
		}
		if result.ID != "" {
			begun = append(begun, result)
		}
		return nil
	}
	sent, err := p.sendRuns(ctx, c, steps, send)
	for i := 0; i < len(steps.Groups) && err == nil; i++ {
		err = p.sendGroup(&steps.Groups[i], send)
	}
	if err != nil {
		for _, r := range begun {
			steps.Deployments = append(steps.Deployments, deploymentEnd{ID: r.ID, Version: r.Version, State: "running"})
		}
		return fmt.Errorf("%d of %d taken over; the same command again does the rest: %w", sent, len(steps.runs), err)
	}
	if err := p.await(ctx, c, ends, steps, begun); err != nil || c.print.json {
		return err
	}
	return c.print.text(fmt.Sprintf("taken over: %d, and %d groups", sent, len(steps.Groups)))
}

// sendRuns sends apps and pods, what others depend on first, and tells how many have got there.
func (p *appImport) sendRuns(ctx context.Context, c *call, steps *importPlan, send func(method, path string, body []byte) error) (sent int, err error) {
	var batch []json.RawMessage
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		body, err := json.Marshal(batch)
		if err != nil {
			return err
		}
		if err := send(http.MethodPut, withQuery("/v2/apps", "force", fmt.Sprint(p.force), "partialUpdate", "false"), body); err != nil {
			return (&definitions{apps: batch}).named(err)
		}
		sent += len(batch)
		batch, size = nil, 0
		return nil
	}
	for _, r := range steps.runs {
		body, err := json.Marshal(r.body)
		if err != nil {
			return sent, err
		}
		if r.pod {
			if err := flush(); err != nil {
				return sent, err
			}
			if err := p.sendPod(ctx, c, r, body, send); err != nil {
				return sent, err
			}
			sent++
			continue
		}
		if len(batch) > 0 && (len(batch) == importApps || size+len(body) > importBytes) {
			if err := flush(); err != nil {
				return sent, err
			}
		}
		batch, size = append(batch, body), size+len(body)
	}
	err = flush()
	return sent, err
}

// sendPod creates a pod, or changes it.
func (p *appImport) sendPod(ctx context.Context, c *call, r foreignRun, body []byte, send func(method, path string, body []byte) error) error {
	known, err := c.marathon.isPod(ctx, string(r.id))
	if err != nil {
		return err
	}
	method, path, body, err := (&definitions{pod: true, known: known, body: body}).request(p.force)
	if err != nil {
		return err
	}
	return send(method, path, body)
}

// sendGroup sets what a group says of itself; its apps stay as they are.
func (p *appImport) sendGroup(g *foreignGroup, send func(method, path string, body []byte) error) error {
	body, err := json.Marshal(g)
	if err != nil {
		return err
	}
	path := "/v2/groups" + string(g.ID)
	if g.ID == app.Root {
		path = "/v2/groups"
	}
	return send(http.MethodPut, withQuery(path, "force", fmt.Sprint(p.force)), body)
}

// await follows the deployments until all have ended.
func (p *appImport) await(ctx context.Context, c *call, ends *endings, steps *importPlan, begun []deploymentResult) error {
	waiting := ctx
	if p.timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, p.timeout, errGoesOn)
		defer cancel()
	}
	show := newDeploymentProgress(c)
	defer show.end()
	var failed []error
	for _, result := range begun {
		end := deploymentEnd{ID: result.ID, Version: result.Version, State: "running"}
		var err error
		if !p.detach && waiting.Err() == nil {
			end, err = c.follow(waiting, ends, show, result)
		}
		if err != nil {
			end.State = "running"
		}
		steps.Deployments = append(steps.Deployments, end)
		switch {
		case waiting.Err() != nil:
		case err != nil:
			failed = append(failed, fmt.Errorf("cannot tell how deployment %s goes: %w", result.ID, err))
		case end.State == "failed":
			failed = append(failed, &exitError{exitFailed, fmt.Errorf("deployment %s has failed: %s", result.ID, end.Reason)})
		}
	}
	switch {
	case p.detach:
		return nil
	case ctx.Err() != nil:
		return &exitError{exitInterrupted, errors.New("interrupted: all definitions are taken over, and their deployments go on; starling deployment watch shows them")}
	case waiting.Err() != nil:
		return &exitError{exitPatience, fmt.Errorf("all definitions are taken over, and their deployments have not ended within %v; starling deployment watch shows them", p.timeout)}
	}
	return errors.Join(failed...)
}
