package libct

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
)

// bundle is all that the launcher needs to know of a container, and what a later life of the agent needs to give back what
// it holds. It is JSON in the container's folder. Fields are added, never given another meaning.
type bundle struct {
	ID string `json:"id"`
	// Parent is that of the spec.
	Parent string `json:"parent,omitempty"`
	// Sandbox is the container's sandbox on the node.
	Sandbox string `json:"sandbox"`
	// Config is complete but for what only the launcher can see: the root file system, and the seccomp filter.
	Config *configs.Config `json:"config"`
	// Cgroups are the folders of the cgroups by controller; that of the unified hierarchy is under the empty name.
	Cgroups map[string]string `json:"cgroups"`
	// Layers are those of the image, uppermost first; Root is a root file system that is there already. With neither, the
	// container sees that of the node.
	Layers []string `json:"layers,omitempty"`
	Root   string   `json:"root,omitempty"`
	// Image is set when there is a root file system of the container's own.
	Image bool `json:"image,omitempty"`
	// Path, Args, Env and Dir are those of the first process. Without a path it is the first of the arguments.
	Path string   `json:"path,omitempty"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	// User is a name or number, looked up in the image, and there with a group after a colon if need be.
	User string `json:"user,omitempty"`
	// Owner is the user in numbers where there is no image.
	Owner *owner `json:"owner,omitempty"`
	// Seccomp puts the default filter on.
	Seccomp bool `json:"seccomp,omitempty"`
	// Terminal is set for a container that has one.
	Terminal *terminal `json:"terminal,omitempty"`
}

// owner is a user in numbers.
type owner struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"`
}

// terminal says how a terminal is at first, and where its output is kept.
type terminal struct {
	Columns uint16 `json:"columns,omitempty"`
	Rows    uint16 `json:"rows,omitempty"`
	Output  string `json:"output,omitempty"`
}

// The names in a container's folder.
const (
	bundleName  = "bundle.json"
	rootName    = "root"
	upperName   = "upper"
	workName    = "work"
	stateName   = "s"
	sourcesName = "m"
	consoleName = "console"
)

const (
	containerPrefix = "c-"
	groupPrefix     = "g-"
	trashPrefix     = "trash-"
)

// safeName makes a name of an id that is one for libcontainer, too: letters, digits and few others, not long.
func safeName(id string) string {
	safe := id != "" && len(id) <= 100 && !strings.HasPrefix(id, ".") && strings.IndexFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r))
	}) < 0
	if safe {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "+" + hex.EncodeToString(sum[:16])
}

func (b *bundle) write(folder string) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	tmp := filepath.Join(folder, bundleName+".t")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(folder, bundleName))
}

func readBundle(folder string) (*bundle, error) {
	text, err := os.ReadFile(filepath.Join(folder, bundleName))
	if err != nil {
		return nil, err
	}
	b := new(bundle)
	return b, json.Unmarshal(text, b)
}
