// Package sandbox is where tasks live on disk: the folders below the work directory that tools of Mesos users expect,
//
//	<work_dir>/slaves/<agent id>/frameworks/<framework id>/executors/<executor id>/runs/<container id>/
//	<work_dir>/slaves/latest -> <agent id>       .../runs/latest -> <container id>
//	.../runs/<container id>/containers/<id>/     a container nested in that one, and so on within
//	.../runs/<container id>/tasks/<task id> -> ../containers/<id>
//	<work_dir>/containers/<container id>/        standalone containers
//
// with the files stdout and stderr in each ("latest" is a convenience: where it cannot be had, the log says so and all else
// goes on); their end, when nobody has needed them for the delay (collector.go); the bounds of what tasks write there
// (rotate.go, meter.go); and safe reading of them for the file endpoints (files.go), which never leaves the folder that it
// was given, whatever links a task put there.
//
// A sandbox belongs to its task's user, and the folder of an executor's runs, which is the agent's own, keeps all others away
// (guard.go). Whatever is done in one here holds on to what was opened (os.Root), and trusts no
// path within it twice.
package sandbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Layout knows the paths of one agent's sandboxes.
type Layout struct {
	workDir, agentID string
	log              *slog.Logger // nil for none
	// volumes are the folders of persistent volumes by the paths at which sandboxes show them.
	volumes map[string]string
	// files are shown beside sandboxes, by their virtual paths.
	files map[string]string
}

// New returns the layout below an absolute work directory.
func New(workDir, agentID string) Layout { return Layout{workDir: workDir, agentID: agentID} }

// WithLog returns the layout with a log for what goes wrong and is not worth an error.
func (l Layout) WithLog(log *slog.Logger) Layout {
	l.log = log
	return l
}

// WithVolumes returns the layout with persistent volumes: their folders by the absolute paths at which sandboxes show them.
// What is read below such a path is read in the volume.
func (l Layout) WithVolumes(volumes map[string]string) Layout {
	l.volumes = volumes
	return l
}

// WithFiles returns the layout with files that are shown beside sandboxes, such as a log, by their virtual paths. They are the
// operator's: links in the place of them are followed.
func (l Layout) WithFiles(files map[string]string) Layout {
	l.files = files
	return l
}

// Root is the folder of all sandboxes of the agent.
func (l Layout) Root() string { return filepath.Join(l.workDir, "slaves", l.agentID) }

// Runs is the folder of all runs of an executor.
func (l Layout) Runs(framework, executor string) string {
	return filepath.Join(l.Root(), "frameworks", framework, "executors", executor, "runs")
}

// Dir is the sandbox of one container.
func (l Layout) Dir(framework, executor, container string) string {
	return filepath.Join(l.Runs(framework, executor), container)
}

// Init makes the folder of the agent, and "latest" beside it.
func (l Layout) Init() error {
	if err := os.MkdirAll(l.Root(), 0o755); err != nil {
		return fmt.Errorf("cannot make sandboxes: %w", err)
	}
	l.latest(l.agentID, filepath.Join(l.workDir, "slaves"))
	return nil
}

// latest points the link of that name in a folder at target. A failure costs people a shortcut and nothing else.
func (l Layout) latest(target, dir string) {
	if err := link(target, filepath.Join(dir, "latest")); err != nil && l.log != nil {
		l.log.Warn("cannot point the link to the latest", "err", err)
	}
}

// Agents returns the ids of the agents whose sandboxes lie in a work directory, in order.
func Agents(workDir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(workDir, "slaves"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "latest" {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// all returns the folders of all runs, those of agents that used the work directory before this one too, and of all standalone
// containers.
func (l Layout) all() ([]string, error) {
	agents, err := Agents(l.workDir)
	if err != nil {
		return nil, err
	}
	runs, err := filepath.Glob(filepath.Join(globEscape(l.workDir), dirContainers, "*"))
	if err != nil {
		return nil, err
	}
	for _, id := range agents {
		found, err := filepath.Glob(filepath.Join(globEscape(New(l.workDir, id).Root()), "frameworks", "*", "executors", "*", "runs", "*"))
		if err != nil {
			return nil, err
		}
		runs = append(runs, found...)
	}
	return runs, nil
}

// globEscape protects the characters that mean something in a pattern.
func globEscape(path string) string {
	out := make([]byte, 0, len(path))
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}

// Create makes the sandbox of a container with empty output files, owned by the user who is to run in it (empty: the
// agent's own), and points "latest" to it. Doing it again does no harm. ids must be safe path segments.
func (l Layout) Create(framework, executor, container, owner string) (dir string, err error) {
	for _, id := range []string{framework, executor, container} {
		if !Safe(id) {
			return "", fmt.Errorf("cannot make sandbox: id %q is no path segment", id)
		}
	}
	uid, gid, err := ownerOf(owner)
	if err != nil {
		return "", err
	}
	dir = l.Dir(framework, executor, container)
	err = makeBox(dir, uid, gid)
	if errors.Is(err, os.ErrNotExist) {
		// The collector may just have removed a parent that was empty.
		err = makeBox(dir, uid, gid)
	}
	if err == nil {
		err = guard(l.Runs(framework, executor), gid)
	}
	if err != nil {
		return "", fmt.Errorf("cannot make sandbox: %w", err)
	}
	l.latest(container, l.Runs(framework, executor))
	return dir, nil
}

// makeBox makes a sandbox with what is in it. All above it is the agent's own.
func makeBox(dir string, uid, gid int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	box, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer box.Close()
	return fill(box, uid, gid)
}

// Owner finds out whose a container is by where its sandbox lies.
func (l Layout) Owner(container string) (framework, executor string, ok bool) {
	if !Safe(container) {
		return "", "", false
	}
	// What can't be listed has no sandboxes to find.
	frameworks, _ := os.ReadDir(filepath.Join(l.Root(), "frameworks"))
	for _, f := range frameworks {
		executors, _ := os.ReadDir(filepath.Join(l.Root(), "frameworks", f.Name(), "executors"))
		for _, e := range executors {
			if info, err := os.Lstat(l.Dir(f.Name(), e.Name(), container)); err == nil && info.IsDir() {
				return f.Name(), e.Name(), true
			}
		}
	}
	return "", "", false
}

// Safe tells whether an id can be one segment of a path.
func Safe(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= 255 && !strings.ContainsAny(id, "/\\\x00")
}

// link points name at target, in place of whatever it pointed to; a crash leaves the old or the new.
func link(target, name string) error {
	if now, err := os.Readlink(name); err == nil && now == target {
		return nil
	}
	if err := os.Symlink(target, name); err == nil {
		return nil
	}
	temp := name + "." + filepath.Base(target)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot link %q: %w", name, err)
	}
	if err := os.Symlink(target, temp); err != nil {
		return fmt.Errorf("cannot link %q: %w", name, err)
	}
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(fmt.Errorf("cannot link %q: %w", name, err), os.Remove(temp))
	}
	return nil
}

// Lookup finds a user by name or number. A number that nobody has is its own group.
func Lookup(owner string) (uid, gid int, err error) {
	u, err := user.Lookup(owner)
	if err != nil {
		if uid, numErr := strconv.Atoi(owner); numErr == nil && uid >= 0 {
			if u, err = user.LookupId(owner); err != nil {
				// A number that has no name is as good as any.
				return uid, uid, nil
			}
		} else {
			return 0, 0, err
		}
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, fmt.Errorf("user %q has no number: %w", owner, err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, fmt.Errorf("group of user %q has no number: %w", owner, err)
	}
	return uid, gid, nil
}
