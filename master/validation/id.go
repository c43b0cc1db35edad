package validation

import (
	"errors"
	"fmt"
)

// maxID is the most bytes of an id: ids become names of files.
const maxID = 255

// ID checks the characters of the id of a task, an executor, a framework, an agent, an operation or a persistent volume.
func ID(id string) error {
	switch {
	case id == "":
		return errors.New("ID must not be empty")
	case len(id) > maxID:
		return fmt.Errorf("ID must not be greater than %d characters", maxID)
	case id == "." || id == "..":
		return fmt.Errorf("'%s' is disallowed", id)
	}
	for i := range len(id) {
		if c := id[i]; c < ' ' || c == 0x7f || c == '/' || c == '\\' {
			return fmt.Errorf("'%s' contains invalid characters", id)
		}
	}
	return nil
}

// uuid checks the length of an update's uuid.
func uuid(b []byte) error {
	if len(b) != 16 {
		return errors.New("Not a valid UUID")
	}
	return nil
}
