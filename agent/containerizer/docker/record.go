package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"starling/agent/containerizer"
)

// record is what is on disk of a container:
//
//	<dir>/containers/<id>.json  this
//	<dir>/containers/<id>.log   how far its output was copied (logs.go)
//
// They guard against the end of the agent, not of the machine: after that, nothing runs and the engine has all exits. So
// they are renamed into place, and not synced. A record that does not read is as good as none: the container is known by
// its labels then.
type record struct {
	ID     string `json:"id"`
	Engine string `json:"engine"` // the engine's id; empty until the container was created
	// PID and Ticks are the first process and its start; 0 where it is not to be seen on this machine.
	PID     int       `json:"pid,omitempty"`
	Ticks   uint64    `json:"ticks,omitempty"`
	Started time.Time `json:"started"`
	Note    []byte    `json:"note,omitempty"`
	Stdout  string    `json:"stdout,omitempty"`
	Stderr  string    `json:"stderr,omitempty"`
	TTY     bool      `json:"tty,omitempty"`
	Memory  int64     `json:"memory,omitempty"`
	// Signals has a bit for each signal that the container was sent.
	Signals uint64              `json:"signals,omitempty"`
	Exit    *containerizer.Exit `json:"exit,omitempty"`
	// Removed is when the agent forgot the container.
	Removed *time.Time `json:"removed,omitempty"`
}

// removal is a container that the engine keeps for a while after Remove.
type removal struct {
	engine string
	due    time.Time
}

// files is the folder of records.
type files struct{ dir string }

func (f files) path(id, suffix string) string { return filepath.Join(f.dir, id+suffix) }

func (f files) save(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file := f.path(r.ID, ".json")
	// Two goroutines may write the same record: each has a file of its own until it is renamed.
	tmp, err := os.CreateTemp(f.dir, r.ID+".*.tmp")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// forget takes away all files of a container.
func (f files) forget(id string) error {
	var errs []error
	for _, suffix := range []string{".json", ".log"} {
		if err := os.Remove(f.path(id, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// load reads all records; those that do not read are named in damaged and taken away.
func (f files) load() (records map[string]record, damaged []string, err error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the state folder: %w", err)
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the state folder: %w", err)
	}
	records = make(map[string]record)
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".tmp") {
			_ = os.Remove(filepath.Join(f.dir, entry.Name()))
			continue
		}
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(f.dir, entry.Name()))
		var r record
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil || r.ID != id {
			damaged = append(damaged, id)
			_ = os.Remove(filepath.Join(f.dir, entry.Name()))
			continue
		}
		records[id] = r
	}
	return records, damaged, nil
}
