package hosts

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// cgroupName matches the folder of an agent's cgroups in what /proc tells of its supervisor and of its tasks.
var cgroupName = regexp.MustCompile(`/(starling-[0-9a-f]{8})/`)

// cgroups collects the names of agents' cgroups, which are left behind where tasks and supervisors are killed from outside.
type cgroups map[string]bool

// note adds those of a process.
func (c cgroups) note(pid int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for _, m := range cgroupName.FindAllSubmatch(text, -1) {
		c[string(m[1])] = true
	}
}

// remove removes them in every hierarchy. The kernel refuses where processes are left in one.
func (c cgroups) remove() {
	if len(c) == 0 {
		return
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || !c[d.Name()] {
			return nil // of what others remove meanwhile, too
		}
		children, _ := os.ReadDir(path)
		for _, child := range children {
			if child.IsDir() {
				_ = os.Remove(filepath.Join(path, child.Name()))
			}
		}
		_ = os.Remove(path)
		return fs.SkipDir
	})
}
