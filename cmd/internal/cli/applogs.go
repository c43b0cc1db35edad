package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"starling/cmd/internal/flags"
	"starling/gossip/api"
)

// appLogs is "app logs".
type appLogs struct {
	logs
	only string
}

func (l *appLogs) register(s *flags.Set) {
	l.logs.register(s)
	s.StringVar(&l.only, "task", "", "print what one `task` alone has written, by its id or how that begins")
}

// tellPatience is how long the mesh may take to tell of a task that Marathon has.
const tellPatience = 3 * time.Second

// logsAtOnce bounds how many tasks are read at the same time.
const logsAtOnce = 64

func (l *appLogs) run(ctx context.Context, c *call) error {
	id, err := appID(c.args[0])
	if err != nil {
		return err
	}
	t := &appTail{logs: l, c: c, id: id, known: map[string]bool{}, slots: make(chan struct{}, logsAtOnce)}
	err = t.look(ctx)
	if err == nil && len(t.known) == 0 && !t.missing && !l.follow {
		err = fmt.Errorf("%s has no task that runs; those that have ended can be read with \"starling task logs TASK\"", id)
		if l.only != "" {
			err = fmt.Errorf("%s has no task %q that runs", id, l.only)
		}
	}
	for begun := time.Now(); !l.follow && err == nil && ctx.Err() == nil && t.missing && !t.late; {
		select {
		case <-ctx.Done():
		case <-time.After(endEvery):
			t.missing, t.late = false, time.Since(begun) > tellPatience
			err = t.look(ctx)
		}
	}
	for l.follow && err == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(endEvery):
			if later := t.look(ctx); later != nil && ctx.Err() == nil {
				t.problem("", later) // it may be back soon
			}
		}
	}
	t.all.Wait()
	if err == nil && t.failed && !l.follow {
		return &exitError{code: exitFailure}
	}
	return err
}

// appTail reads what the tasks of an app write, each in a goroutine of its own; all are waited for.
type appTail struct {
	logs  *appLogs
	c     *call
	id    string
	known map[string]bool
	slots chan struct{}
	all   sync.WaitGroup
	// missing tells of tasks that the mesh does not tell of yet, late that they are waited for no longer.
	missing, late bool

	mu     sync.Mutex // guards what is printed, and failed
	failed bool
	said   string // the last problem
}

// look starts to read tasks that are new.
func (t *appTail) look(ctx context.Context) error {
	var answer struct{ Tasks []appTask }
	_, err := t.c.marathon.get(ctx, appPath(t.id, "/tasks"), &answer)
	if isMarathonStatus(err, http.StatusNotFound) {
		var pod podView
		if _, none := t.c.marathon.get(ctx, podPath(t.id, "::status"), &pod); !isMarathonStatus(none, http.StatusNotFound) {
			answer.Tasks, err = pod.app().Tasks, none
		}
	}
	if err != nil {
		return err
	}
	mesh, err := t.c.tasks(ctx)
	if err != nil {
		return err
	}
	for i := range answer.Tasks {
		id := answer.Tasks[i].ID
		if t.known[id] || !strings.HasPrefix(id, t.logs.only) {
			continue
		}
		found, err := (&frameworkChoice{t.logs.framework}).pick(id, mesh)
		if err != nil {
			t.missing = true
			if !t.logs.follow && t.late {
				t.known[id] = true
				t.problem(id, err)
			}
			continue // it is being started, and nobody tells of it yet
		}
		t.known[id] = true
		t.all.Go(func() { t.read(ctx, found) })
	}
	return nil
}

// read prints what one task writes.
func (t *appTail) read(ctx context.Context, task *api.Task) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return
	}
	out := &taskLines{tail: t, task: task.ID, name: taskName(task.ID)}
	err := t.logs.of(ctx, t.c, task, out)
	out.flush()
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		t.problem(task.ID, err)
	}
}

// problem says once what went wrong.
func (t *appTail) problem(task string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
	text := said(err)
	if task != "" {
		text = taskName(task) + ": " + text
	}
	if text != t.said {
		t.said = text
		fmt.Fprintf(t.c.io.Err, "starling app logs: %s\n", clean(text))
	}
}

// taskName is a task as it is named at the beginning of lines: what tells it from the others of its app.
func taskName(id string) string {
	app, rest, ok := strings.Cut(id, ".instance-")
	if !ok {
		return id
	}
	short, _, _ := strings.Cut(rest, "-")
	_, rest, _ = strings.Cut(rest, ".")
	container, attempt, _ := strings.Cut(rest, ".")
	if container != "_app" && container != "" {
		short += "." + container
	}
	if attempt != "1" && attempt != "" {
		short += "." + attempt
	}
	return app + "." + short
}

// taskLines puts the name of a task before each of its lines. Lines of several tasks do not mix.
type taskLines struct {
	tail       *appTail
	task, name string
	held       []byte
}

// lineMax is the longest line that is kept together.
const lineMax = 64 << 10

// Write implements io.Writer.
func (l *taskLines) Write(p []byte) (int, error) {
	l.held = append(l.held, p...)
	for {
		end := bytes.IndexByte(l.held, '\n')
		if end < 0 && len(l.held) < lineMax {
			return len(p), nil
		}
		if end < 0 {
			end = lineMax - 1
		}
		if err := l.line(bytes.TrimSuffix(l.held[:end+1], []byte("\n"))); err != nil {
			return 0, err
		}
		l.held = l.held[end+1:]
	}
}

// flush writes a line that has no end.
func (l *taskLines) flush() {
	if len(l.held) > 0 {
		_ = l.line(l.held) // nobody is left to be told
		l.held = nil
	}
}

func (l *taskLines) line(text []byte) error {
	t := l.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.c.print.json {
		body, err := json.Marshal(map[string]string{"task": l.task, "line": string(text)})
		if err != nil {
			return err
		}
		return t.c.print.text(plainJSON(string(body)))
	}
	_, err := io.WriteString(t.c.io.Out, l.name+" | "+string(text)+"\n")
	return err
}
