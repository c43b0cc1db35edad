package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// rootLogger is the name of what all components inherit their level from.
const rootLogger = "ROOT"

// mostLevels bounds the components whose levels may be set.
const mostLevels = 100

// levelNames are the levels that can be asked for.
var levelNames = map[string]slog.Level{
	"TRACE": slog.LevelDebug - 4, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARN": slog.LevelWarn, "ERROR": slog.LevelError,
}

// levels say how much each component logs: as much as was asked for, for as long as that holds, or as what stands above it
// ("marathon" above "marathon/api"), and in the end the whole process, does.
type levels struct {
	root *slog.LevelVar
	now  func() time.Time
	// asked is replaced as a whole, and read with each line that may be logged.
	asked atomic.Pointer[map[string]asked]

	mu         sync.Mutex // held while asked is replaced; guards what follows
	components map[string]bool
}

// asked is a level that somebody has asked for; a zero until is for good.
type asked struct {
	level slog.Level
	until time.Time
}

func newLevels(root *slog.LevelVar) *levels {
	return &levels{root: root, now: time.Now, components: make(map[string]bool)}
}

// of returns the level of a component, and whether it is its own.
func (l *levels) of(component string) (level slog.Level, own bool) {
	all := l.asked.Load()
	if all == nil {
		return l.root.Level(), component == rootLogger
	}
	for name := component; ; {
		if a, ok := (*all)[name]; ok && (a.until.IsZero() || l.now().Before(a.until)) {
			return a.level, name == component
		}
		if name == rootLogger {
			return l.root.Level(), component == rootLogger
		}
		if cut := strings.LastIndexByte(name, '/'); cut >= 0 {
			name = name[:cut]
		} else {
			name = rootLogger
		}
	}
}

// Levels returns the level of each component, and of ROOT.
func (l *levels) Levels() map[string]string {
	l.mu.Lock()
	names := maps.Clone(l.components)
	l.mu.Unlock()
	names[rootLogger] = true
	if all := l.asked.Load(); all != nil {
		for name := range *all {
			names[name] = true
		}
	}
	out := make(map[string]string, len(names))
	for name := range names {
		level, own := l.of(name)
		out[name] = levelName(level)
		if !own {
			out[name] += " (inherited)"
		}
	}
	return out
}

// inherited, in place of a level, takes back what was asked for a component.
const inherited = "INHERITED"

// SetLevel asks for a level, for a time or, with 0, for good; "inherited" takes that back. Names that no component has are taken.
func (l *levels) SetLevel(name, level string, d time.Duration) error {
	wanted, ok := levelNames[strings.ToUpper(level)]
	back := strings.EqualFold(level, inherited)
	switch {
	case name == "" || len(name) > 200:
		return errors.New("logger must be named")
	case !ok && !back:
		return fmt.Errorf("level %q is none of trace, debug, info, warn, error, inherited", level)
	case d < 0:
		return errors.New("duration must not be negative")
	}
	a := asked{level: wanted}
	if d > 0 {
		a.until = l.now().Add(d)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]asked)
	if old := l.asked.Load(); old != nil {
		maps.Copy(all, *old)
	}
	maps.DeleteFunc(all, func(_ string, a asked) bool { return !a.until.IsZero() && !l.now().Before(a.until) })
	if all[name] = a; back {
		delete(all, name)
	}
	if len(all) > mostLevels {
		return fmt.Errorf("the levels of %d loggers are set already; \"inherited\" takes one back", mostLevels)
	}
	l.asked.Store(&all)
	return nil
}

func levelName(level slog.Level) string {
	for name, l := range levelNames {
		if l == level {
			return name
		}
	}
	return level.String()
}

// leveled is a handler that logs as much as its component is to.
type leveled struct {
	slog.Handler
	levels    *levels
	component string
}

// handler puts levels in front of a handler.
func (l *levels) handler(h slog.Handler) slog.Handler { return leveled{h, l, rootLogger} }

// Enabled implements slog.Handler.
func (h leveled) Enabled(_ context.Context, level slog.Level) bool {
	least, _ := h.levels.of(h.component)
	return level >= least
}

// WithAttrs implements slog.Handler: the attribute "component" says whose level counts.
func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key != "component" || a.Value.Kind() != slog.KindString {
			continue
		}
		h.component = a.Value.String()
		h.levels.mu.Lock()
		if len(h.levels.components) < mostLevels {
			h.levels.components[h.component] = true
		}
		h.levels.mu.Unlock()
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// WithGroup implements slog.Handler.
func (h leveled) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
