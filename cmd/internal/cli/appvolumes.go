package cli

import (
	"fmt"
	"strings"
)

// shownVolume is a volume of an app, as far as it is shown; of a pod Name stands for the path.
type shownVolume struct {
	ContainerPath string `json:"containerPath"`
	Name          string `json:"name"`
	Persistent    *struct {
		Size float64 `json:"size"`
	} `json:"persistent"`
}

// localVolume is where the data of a task is.
type localVolume struct {
	ContainerPath string `json:"containerPath"`
	PersistenceID string `json:"persistenceId"`
}

// dataText names the volumes that stay when a task ends; empty for none.
func (a *appStatus) dataText() string {
	all := a.PodVolumes
	if a.Container != nil {
		all = a.Container.Volumes
	}
	var out []string
	for _, v := range all {
		if v.Persistent != nil {
			out = append(out, fmt.Sprintf("%s (%s)", v.ContainerPath+v.Name, megabytes(v.Persistent.Size)))
		}
	}
	return strings.Join(out, ", ")
}

// places say at which node which data is.
func (a *appStatus) places() []string {
	var out []string
	seen := map[string]bool{} // the containers of a pod share what it has
	for i := range a.Tasks {
		for _, v := range a.Tasks[i].Volumes {
			if !seen[v.PersistenceID] {
				seen[v.PersistenceID] = true
				out = append(out, fmt.Sprintf("%s on %s: %s", v.ContainerPath, a.Tasks[i].Host, v.PersistenceID))
			}
		}
	}
	return out
}
