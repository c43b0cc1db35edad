package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	suffixExecutor = ".executor"
	suffixRun      = ".run"
)

// ExecutorItem is what is known of one run of an executor. At least one of the messages is set.
type ExecutorItem struct {
	ContainerID string
	Executor    *Executor
	Run         *Run
}

// PutExecutor writes the intent to run an executor. It fails with ErrFull while the disk is.
func PutExecutor(e *Executor) Change {
	name := filepath.Join(dirExecutors, e.ContainerId+suffixExecutor)
	return Change{what: name, puts: []put{{name, kindExecutor, e}}, intent: true}
}

// PutRun writes how far a run of an executor is.
func PutRun(r *Run) Change {
	name := filepath.Join(dirExecutors, r.ContainerId+suffixRun)
	return Change{what: name, puts: []put{{name, kindRun, r}}}
}

// EndExecutor forgets a run of an executor. It takes the place of a PutRun that still waits.
func EndExecutor(containerID string) Change {
	run := filepath.Join(dirExecutors, containerID+suffixRun)
	return Change{what: run, remove: []string{filepath.Join(dirExecutors, containerID+suffixExecutor), run}}
}

// loadExecutors reads the runs of executors.
func (s *Store) loadExecutors(l *Loaded) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirExecutors))
	if err != nil {
		return fmt.Errorf("cannot read folder: %w", err)
	}
	items := map[string]*ExecutorItem{}
	known := func(id string) *ExecutorItem {
		if items[id] == nil {
			items[id] = &ExecutorItem{ContainerID: id}
		}
		return items[id]
	}
	for _, e := range entries {
		name := filepath.Join(dirExecutors, e.Name())
		if id, ok := strings.CutSuffix(e.Name(), suffixExecutor); ok {
			executor := &Executor{}
			if ok, err := s.read(l, name, kindExecutor, executor); err != nil {
				return err
			} else if ok {
				known(id).Executor = executor
			}
		} else if id, ok := strings.CutSuffix(e.Name(), suffixRun); ok {
			run := &Run{}
			if ok, err := s.read(l, name, kindRun, run); err != nil {
				return err
			} else if ok {
				known(id).Run = run
			}
		}
	}
	for _, item := range items {
		l.Executors = append(l.Executors, *item)
	}
	slices.SortFunc(l.Executors, func(a, b ExecutorItem) int { return strings.Compare(a.ContainerID, b.ContainerID) })
	return nil
}
