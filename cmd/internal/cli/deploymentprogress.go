package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"
)

// shownMax is how many apps of a deployment are shown as they go.
const shownMax = 20

// deploymentProgress shows how a deployment goes: on a terminal in place, else a line for each change. Where JSON is asked for, the
// lines go to the errors.
type deploymentProgress struct {
	c    *call
	live *os.File // the terminal, nil for none
	// drawn is how many lines the terminal shows that are to be written over; said is what was told last of each app.
	drawn int
	said  map[string]string
}

func newDeploymentProgress(c *call) *deploymentProgress {
	p := &deploymentProgress{c: c, said: map[string]string{}}
	if f, ok := c.io.Out.(*os.File); ok && isTerminal(f) && !c.print.json {
		p.live = f
	}
	return p
}

// deployment shows where a deployment is.
func (p *deploymentProgress) deployment(ctx context.Context, d *deploymentView) {
	head := fmt.Sprintf("deployment %s, %s", d.ID, d.described())
	lines := p.apps(ctx, d)
	if ctx.Err() != nil {
		return
	}
	if p.live == nil {
		p.tell(d.ID, head)
		for _, l := range lines {
			p.tell(l[0], l[0]+": "+l[1])
		}
		return
	}
	width := 0
	for _, l := range lines {
		width = max(width, len(l[0]))
	}
	frame := []string{head}
	for _, l := range lines {
		frame = append(frame, fmt.Sprintf("  %-*s  %s", width, l[0], l[1]))
	}
	p.draw(frame)
}

// apps is what is to be said of each app that is being worked on.
func (p *deploymentProgress) apps(ctx context.Context, d *deploymentView) (lines [][2]string) {
	if len(d.Current) == 0 {
		return nil
	}
	queue, err := p.c.marathon.queue(ctx)
	if err != nil {
		return nil // the next look tells
	}
	for i := range d.Current {
		act := &d.Current[i]
		if i == shownMax {
			lines = append(lines, [2]string{"...", fmt.Sprintf("and %d more", len(d.Current)-i)})
			break
		}
		if act.id() == "" || act.stops() || act.Action == "StartApplication" || act.Action == "StartPod" {
			continue // the step says all that is known of it
		}
		if a, _, err := p.c.marathon.app(ctx, act.id()); err == nil {
			waits := ""
			if q := queue[act.id()]; q != nil && q.Count > 0 {
				waits = q.brief()
				if p.live == nil && q.Delay.TimeLeft > 0 {
					waits = putOff // a line for each second of it would be too many
				}
			}
			lines = append(lines, [2]string{act.id(), a.going(act, waits)})
		}
	}
	return lines
}

// going says how far an app is in its deployment; waits is what it waits for, if it does.
func (a *appStatus) going(act *action, waits string) string {
	running, healthy, old, starting := 0, 0, 0, 0
	for i := range a.Tasks {
		t := &a.Tasks[i]
		switch outdated := t.Version.Before(a.VersionInfo.LastConfigChangeAt); {
		case outdated && t.State == "TASK_RUNNING":
			old++
		case outdated:
		case t.State == "TASK_RUNNING":
			running++
			if t.health() == "healthy" {
				healthy++
			}
		case t.State == "TASK_STAGING", t.State == "TASK_STARTING":
			starting++
		}
	}
	if a.Pod { // its tasks are parts of instances
		running, healthy, old, starting = a.Running, a.Healthy, 0, a.Staged
	}
	parts := []string{fmt.Sprintf("%d of %d running", running, a.Instances)}
	if a.everywhere() {
		parts[0] = fmt.Sprintf("%d running", running)
	}
	if len(a.HealthChecks) > 0 {
		parts = append(parts, fmt.Sprintf("%d healthy", healthy))
	}
	if starting > 0 {
		parts = append(parts, fmt.Sprintf("%d starting", starting))
	}
	if old > 0 {
		parts = append(parts, fmt.Sprintf("%d old", old))
	}
	if not := slices.IndexFunc(act.Readiness, func(r readiness) bool { return !r.Ready }); not >= 0 {
		parts = append(parts, "not ready: "+act.Readiness[not].text())
	}
	text := strings.Join(parts, ", ")
	if waits != "" {
		text += "; waiting: " + waits
	}
	return text
}

// tell prints a line if it says something new of what it is about.
func (p *deploymentProgress) tell(about, text string) {
	if p.said[about] == text {
		return
	}
	p.said[about] = text
	p.line(text)
}

// line prints a line that stays.
func (p *deploymentProgress) line(text string) {
	p.end()
	out := p.c.io.Out
	if p.c.print.json {
		out = p.c.io.Err
	}
	fmt.Fprintln(out, clean(text))
}

// draw writes lines over those that were drawn last. None is longer than the terminal is wide: it would take two.
func (p *deploymentProgress) draw(lines []string) {
	width, height, err := term.GetSize(int(p.live.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	if len(lines) >= height {
		lines = lines[:max(height-1, 1)]
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", p.drawn)
	}
	for _, l := range lines {
		runes := []rune(clean(l))
		b.WriteString(string(runes[:min(len(runes), width-1)]) + "\n")
	}
	p.drawn = len(lines)
	_, _ = p.live.WriteString(b.String()) // a terminal that is gone is no reason to stop waiting
}

// end takes away what was drawn.
func (p *deploymentProgress) end() {
	if p.drawn > 0 {
		_, _ = fmt.Fprintf(p.live, "\x1b[%dA\r\x1b[J", p.drawn)
		p.drawn = 0
	}
}
