package supervisor

import (
	"encoding/json"
	"io"
)

// Entry says how a process enters a container that runs: see EnterCommand.
type Entry struct {
	// Path is the program, absolute or relative to Dir; Args its argv.
	Path string
	Args []string
	// Env is the whole environment.
	Env []string
	Dir string
	// Credential is the user to become; nil means that of the caller.
	Credential *Credential
	// Cgroups are the folders of the container's cgroups.
	Cgroups []string
}

// The descriptors that a process which enters is handed: it reads its Entry from the one, and writes to the other why it
// could not run the program. The second closes without a word when the program runs.
const (
	EnterInput  = 3
	EnterErrors = 4
)

// EnterCommand returns the argv of a process that becomes the program of an Entry in its container's cgroups: command is
// that of a supervisor without flags. A process of the first version of cgroups can't be born in one but by a thread that is
// there itself, which the agent, whom a kill of the container must not hit, cannot have.
func EnterCommand(command []string) []string {
	return append(command[:len(command):len(command)], "--enter")
}

// Encode writes the entry for EnterInput.
func (e *Entry) Encode(w io.Writer) error {
	return json.NewEncoder(w).Encode(entryWire{
		Path: []byte(e.Path), Args: strlist(e.Args), Env: strlist(e.Env), Dir: []byte(e.Dir), Credential: e.Credential, Cgroups: e.Cgroups,
	})
}

// entryWire is an Entry whose strings keep their bytes.
type entryWire struct {
	Path       []byte      `json:"path"`
	Args       strlist     `json:"args"`
	Env        strlist     `json:"env"`
	Dir        []byte      `json:"dir"`
	Credential *Credential `json:"credential,omitempty"`
	Cgroups    []string    `json:"cgroups,omitempty"`
}
