package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// frameworkFile is the file of a Marathon's folder that says which framework it is, whatever becomes of the store.
//
// History of the format: 1, 2026-11, first version.
type frameworkFile string

const frameworkFormat = 1

type frameworkNote struct {
	Format    int    `json:"format"`
	Framework string `json:"framework"`
}

// Recall implements marathon.Memory.
func (f frameworkFile) Recall() (string, error) {
	data, err := os.ReadFile(string(f))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var note frameworkNote
	if err := json.Unmarshal(data, &note); err != nil || note.Format != frameworkFormat {
		return "", fmt.Errorf("%s does not hold a framework id, but %.80q: restore the file, or remove it where the store is known to be whole", string(f), data)
	}
	return note.Framework, nil
}

// Keep implements marathon.Memory.
func (f frameworkFile) Keep(id string) error {
	if id == "" {
		if err := os.Remove(string(f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(frameworkNote{frameworkFormat, id})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o700); err != nil {
		return err
	}
	return writeDurably(string(f), append(data, '\n'))
}
