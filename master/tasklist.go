package master

import (
	"iter"
	"slices"
	"strings"

	"starling/master/mesos/resources"
)

// TaskPage is a few tasks of one framework, in order of ids. While none of them changes, views share the page: what is made
// of it can be kept by its address.
type TaskPage struct{ Tasks []*TaskView }

// TaskList is the tasks of one framework, in order of ids where they are active.
type TaskList []*TaskPage

// All iterates over the tasks.
func (l TaskList) All() iter.Seq[*TaskView] {
	return func(yield func(*TaskView) bool) {
		for _, p := range l {
			for _, t := range p.Tasks {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// Len is the number of tasks.
func (l TaskList) Len() int {
	n := 0
	for _, p := range l {
		n += len(p.Tasks)
	}
	return n
}

// pageSize is the largest number of tasks on a page. A change has one page made anew, and a view walks all pages.
const pageSize = 32

// taskList holds the tasks of a framework, and the pages on which they are shown. A view costs what has changed since the
// last one, whatever the number of tasks.
type taskList struct {
	byID  map[string]*task
	pages []*page // in order of ids; none is empty

	stale bool // a page is
	// What follows is right unless it is stale: the active tasks and those that were given up with their agents, and what all
	// of them hold.
	live, unreachable TaskList
	held              resources.Resources
}

type page struct {
	tasks []*task
	stale bool
	// live and unreachable show the tasks of the page; nil where there are none of the kind.
	live, unreachable *TaskPage
	held              resources.Resources
}

func newTaskList() taskList { return taskList{byID: make(map[string]*task)} }

// find returns the page on which an id is or belongs, and its place there.
func (l *taskList) find(id string) (at, place int, found bool) {
	at, found = slices.BinarySearchFunc(l.pages, id, func(p *page, id string) int { return strings.Compare(p.tasks[0].key.task, id) })
	if found || at == 0 {
		return at, 0, found
	}
	at--
	place, found = slices.BinarySearchFunc(l.pages[at].tasks, id, func(t *task, id string) int { return strings.Compare(t.key.task, id) })
	return at, place, found
}

// put adds a task, or puts it in the place of another one of its id.
func (l *taskList) put(t *task) {
	l.byID[t.key.task] = t
	l.stale = true
	at, place, found := l.find(t.key.task)
	switch {
	case len(l.pages) == 0:
		l.pages = append(l.pages, &page{tasks: []*task{t}, stale: true})
		return
	case found:
		l.pages[at].tasks[place] = t
	default:
		l.pages[at].tasks = slices.Insert(l.pages[at].tasks, place, t)
	}
	p := l.pages[at]
	p.stale = true
	if n := len(p.tasks); n > pageSize {
		// Ids often come in order: the full part is left behind as it is then.
		cut := n / 2
		if place == n-1 {
			cut = n - 1
		}
		rest := &page{tasks: slices.Clone(p.tasks[cut:]), stale: true}
		p.tasks = slices.Clone(p.tasks[:cut])
		l.pages = slices.Insert(l.pages, at+1, rest)
	}
}

// remove takes a task off the list.
func (l *taskList) remove(id string) {
	delete(l.byID, id)
	at, place, found := l.find(id)
	if !found {
		return
	}
	l.stale = true
	p := l.pages[at]
	p.tasks, p.stale = slices.Delete(p.tasks, place, place+1), true
	if len(p.tasks) == 0 {
		l.pages = slices.Delete(l.pages, at, at+1)
	}
}

// changed has a task shown anew.
func (l *taskList) changed(id string) {
	if at, _, found := l.find(id); found {
		l.stale, l.pages[at].stale = true, true
	}
}

// show brings what is shown up to date.
func (l *taskList) show(show func(*task) *TaskView) {
	if !l.stale {
		return
	}
	l.stale = false
	l.live, l.unreachable = make(TaskList, 0, len(l.pages)), nil
	for _, p := range l.pages {
		if p.stale {
			p.show(show)
		}
		if p.live != nil {
			l.live = append(l.live, p.live)
		}
		if p.unreachable != nil {
			l.unreachable = append(l.unreachable, p.unreachable)
		}
	}
	l.held = resources.Sum(func(yield func(resources.Resources) bool) {
		for _, p := range l.pages {
			if !yield(p.held) {
				return
			}
		}
	})
}

func (p *page) show(show func(*task) *TaskView) {
	p.stale, p.live, p.unreachable = false, nil, nil
	add := func(to **TaskPage, t *task) {
		if *to == nil {
			*to = &TaskPage{Tasks: make([]*TaskView, 0, len(p.tasks))}
		}
		(*to).Tasks = append((*to).Tasks, show(t))
	}
	for _, t := range p.tasks {
		if t.unreachable.IsZero() {
			add(&p.live, t)
		} else {
			add(&p.unreachable, t)
		}
	}
	p.held = resources.Sum(func(yield func(resources.Resources) bool) {
		for _, t := range p.tasks {
			if !yield(t.held) {
				return
			}
		}
	})
}

// history is the ended tasks of a framework, oldest first. Pages that views hold are not modified.
type history struct {
	pages TaskList
	len   int
}

// add remembers a task, and forgets the oldest ones where there are more than most.
func (h *history) add(t *TaskView, most int) {
	h.pages = slices.Clone(h.pages)
	if n := len(h.pages); n > 0 && len(h.pages[n-1].Tasks) < pageSize {
		last := h.pages[n-1].Tasks
		h.pages[n-1] = &TaskPage{Tasks: append(last[:len(last):len(last)], t)}
	} else {
		h.pages = append(h.pages, &TaskPage{Tasks: []*TaskView{t}})
	}
	h.len++
	for h.len > most {
		first := h.pages[0].Tasks
		if len(first) == 1 {
			h.pages = h.pages[1:]
		} else {
			h.pages[0] = &TaskPage{Tasks: first[1:]}
		}
		h.len--
	}
}
