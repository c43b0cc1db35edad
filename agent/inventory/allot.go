package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Allotter decides which GPUs a container gets, and remembers that over restarts of the agent.
type Allotter struct {
	path   string
	gpus   []GPU
	common []string

	mu   sync.Mutex
	held map[string][]int // numbers of GPUs, by container

	writing sync.Mutex // held while the file is written, so that the newest is written last
}

// NewAllotter reads from a file what an earlier life of the agent gave away. An error comes with an Allotter that does not
// know it.
func NewAllotter(path string, gpus []GPU, common []string) (*Allotter, error) {
	a := &Allotter{path: path, gpus: gpus, common: common, held: map[string][]int{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	held := map[string][]int{}
	if err == nil {
		err = json.Unmarshal(data, &held)
	}
	if err != nil {
		return a, fmt.Errorf("cannot read who holds which GPU: %w", err)
	}
	a.held = held
	return a, nil
}

// Take gives a container as many GPUs as it asks for, and returns the device files that it needs. Those of containers that
// live no more are free. It is to be kept by Save before the container is started.
func (a *Allotter) Take(id string, count int, lives func(id string) bool) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.held, func(other string, _ []int) bool { return other == id || !lives(other) })
	taken := map[int]bool{}
	for _, numbers := range a.held {
		for _, n := range numbers {
			taken[n] = true
		}
	}
	var numbers []int
	var paths []string
	for _, g := range a.gpus {
		if !taken[g.Number] && len(numbers) < count {
			numbers, paths = append(numbers, g.Number), append(paths, g.Path)
		}
	}
	if len(numbers) < count {
		return nil, fmt.Errorf("%d GPUs are asked for, and %d of the %d that this machine has are free", count, len(a.gpus)-len(taken), len(a.gpus))
	}
	if count == 0 {
		return nil, nil
	}
	a.held[id] = numbers
	return slices.Concat(paths, a.common), nil
}

// Save writes down who holds what.
func (a *Allotter) Save() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	data, err := json.Marshal(a.held)
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cannot write down who holds which GPU: %w", err)
	}
	if err := writeSynced(a.path, data); err != nil {
		return fmt.Errorf("cannot write down who holds which GPU: %w", err)
	}
	return nil
}

// writeSynced replaces a file, so that it is on the medium whole or not at all.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
