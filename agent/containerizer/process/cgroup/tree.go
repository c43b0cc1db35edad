// Package cgroup makes cgroups for containers, of the first version, of the second, or of both as a machine has them,
// and without asking for root: what the agent may not have it does without, and can say so.
//
// The cgroups of containers stand below one folder for each hierarchy, which stands in the agent's own cgroup, so that
// whatever limits the agent limits its tasks:
//
//	<mount>/<own cgroup>/<name>/c-<container id>
//	<mount>/<own cgroup>/<name>/g-<group id>/c-<container id>
//	<mount>/<own cgroup>/<name>/supervisor
//
// The folder keeps the kernel's weight for CPU, whatever its containers have: all of them together count as much as the agent
// beside them. So tasks that burn every core leave the agent half of one, and it is not taken for dead.
//
// An agent that lives in a cgroup called "agent" uses the one above it: service managers can be told to do that (systemd:
// Delegate=yes, DelegateSubgroup=agent), and in the unified hierarchy it is what makes limits possible, since there a
// cgroup with processes of its own can't limit its children. Where the agent is alone in its cgroup, it moves itself.
//
// Hierarchies used: the unified one or the freezer, to find the processes of a container again; cpu and memory to limit,
// and cpuacct to count where it is mounted together with another: by itself it is not worth what it costs at each start.
// Containers with namespaces of their own get devices and pids too, see Limits.Contained.
package cgroup

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Config says where the cgroups go.
type Config struct {
	// Name is that of the folder below the agent's own cgroup. It tells the agents of one machine apart.
	Name string
	// Parent is a cgroup to use in place of the agent's own, as seen from the mount points, like "/starling".
	Parent string
	// Root is the root of the file system, for tests; empty is "/".
	Root string
	// Mkdir makes a cgroup, for tests; nil is os.Mkdir.
	Mkdir func(dir string) error
}

// Tree is where containers get their cgroups. It does not change once found.
type Tree struct {
	cfg Config
	// bases are the folders below which containers stand, one for each hierarchy in use.
	bases []base
	// lacks says what can't be had, and why.
	lacks []lack
}

type lack struct{ what, why string }

// miss notes that something can't be had.
func (t *Tree) miss(what string, why error) {
	var p *fs.PathError
	if errors.As(why, &p) {
		why = p.Err
	}
	t.lacks = append(t.lacks, lack{what, why.Error()})
}

// base is the folder of one hierarchy.
type base struct {
	dir string
	// point is where the hierarchy is mounted.
	point   string
	unified bool
	// has are the controllers that can be used here: freezer, cpu, cpuacct, memory, devices, pids.
	has []string
}

// wanted are the controllers that we make use of.
var wanted = []string{"freezer", "cpu", "cpuacct", "memory", "devices", "pids"}

// contained tells whether only containers with namespaces of their own are in this hierarchy.
func (b base) contained() bool {
	return !b.unified && !slices.ContainsFunc(b.has, func(c string) bool { return c != "devices" && c != "pids" })
}

// Find looks at what the machine and our rights allow and makes the folders. It never fails: a Tree without any
// hierarchy makes no cgroups.
func Find(cfg Config) *Tree {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Mkdir == nil {
		cfg.Mkdir = func(dir string) error { return os.Mkdir(dir, 0o755) }
	}
	t := &Tree{cfg: cfg}
	mounts, err := t.mounts()
	if err != nil {
		t.miss("cgroups", err)
		return t
	}
	own, err := t.own()
	if err != nil {
		t.miss("cgroups", err)
		return t
	}
	// The unified hierarchy comes first: beside it the freezer is of no use.
	slices.SortStableFunc(mounts, func(a, b mount) int { return cmp.Compare(unifiedFirst(a), unifiedFirst(b)) })
	for _, m := range mounts {
		if t.tracksUnified() && slices.Equal(m.controllers, []string{"freezer"}) || slices.Equal(m.controllers, []string{"cpuacct"}) {
			continue
		}
		b, err := t.settle(m, own)
		if err != nil {
			if !(base{has: m.controllers, unified: m.unified}).contained() {
				t.miss(m.label(), err)
			}
			continue
		}
		t.bases = append(t.bases, b)
	}
	if len(mounts) == 0 {
		t.miss("cgroups", errors.New("none are mounted"))
		return t
	}
	for _, name := range []string{"cpu", "memory"} {
		known := slices.ContainsFunc(t.lacks, func(l lack) bool { return slices.Contains(strings.Split(l.what, ","), name) })
		if !known && !t.Has(name) {
			t.miss(name, errors.New("no such controller"))
		}
	}
	return t
}

func unifiedFirst(m mount) int {
	if m.unified {
		return 0
	}
	return 1
}

func (t *Tree) tracksUnified() bool {
	return slices.ContainsFunc(t.bases, func(b base) bool { return b.unified })
}

// Has reports whether a controller ("cpu", "memory", "cpuacct", "pids", "devices") can be used; the unified hierarchy has no
// controller for devices.
func (t *Tree) Has(controller string) bool {
	return slices.ContainsFunc(t.bases, func(b base) bool { return slices.Contains(b.has, controller) })
}

// Tracks reports whether the processes of a container can be found by its cgroup.
func (t *Tree) Tracks() bool {
	return slices.ContainsFunc(t.bases, func(b base) bool { return !b.contained() })
}

// Lacks says what can't be had and why, in words for people; it is empty when all is there.
func (t *Tree) Lacks() string {
	var reasons, parts []string
	what := make(map[string][]string)
	for _, l := range t.lacks {
		if !slices.Contains(reasons, l.why) {
			reasons = append(reasons, l.why)
		}
		what[l.why] = append(what[l.why], l.what)
	}
	for _, why := range reasons {
		parts = append(parts, strings.Join(what[why], ", ")+": "+why)
	}
	return strings.Join(parts, "; ")
}

// mount is a mounted hierarchy.
type mount struct {
	root, point string
	unified     bool
	controllers []string
}

func (m mount) label() string {
	if m.unified {
		return "unified"
	}
	return strings.Join(m.controllers, ",")
}

// mounts reads which hierarchies are mounted where.
func (t *Tree) mounts() ([]mount, error) {
	text, err := os.ReadFile(filepath.Join(t.cfg.Root, "proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	var found []mount
	seen := make(map[string]bool)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		m, ok := parseMount(lines.Text())
		// Only the first mount of each counts; others show the same.
		if ok && !seen[m.label()] {
			seen[m.label()] = true
			found = append(found, m)
		}
	}
	return found, nil
}

// parseMount reads a line of mountinfo, see proc(5).
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 6 || len(g) < 3 {
		return mount{}, false
	}
	m := mount{root: unescape(f[3]), point: unescape(f[4])}
	switch g[0] {
	case "cgroup2":
		m.unified = true
		return m, true
	case "cgroup":
		for option := range strings.SplitSeq(g[2], ",") {
			if slices.Contains(wanted, option) {
				m.controllers = append(m.controllers, option)
			}
		}
		return m, len(m.controllers) > 0
	}
	return mount{}, false
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for _, r := range []struct{ from, to string }{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, r.from, r.to)
	}
	return s
}

// own reads our own cgroups, by controller; that of the unified hierarchy is under the empty name.
func (t *Tree) own() (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(t.cfg.Root, "proc/self/cgroup"))
	if err != nil {
		return nil, err
	}
	own := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			own[controller] = f[2]
		}
	}
	return own, nil
}

// settle makes the base in one hierarchy.
func (t *Tree) settle(m mount, own map[string]string) (base, error) {
	parent := t.cfg.Parent
	if parent == "" {
		key := ""
		if !m.unified {
			key = m.controllers[0]
		}
		at, ok := own[key]
		if !ok {
			return base{}, errors.New("we are in none of its cgroups")
		}
		// What is mounted may be a part of the hierarchy, and may not even hold us.
		if at, ok = strings.CutPrefix(at, strings.TrimSuffix(m.root, "/")); !ok || strings.Contains(at, "..") {
			at = "/"
		}
		if path.Base(at) == "agent" {
			at = path.Dir(at)
		}
		parent = at
	}
	point := filepath.Join(t.cfg.Root, m.point)
	above := filepath.Join(point, parent)
	b := base{dir: filepath.Join(above, t.cfg.Name), point: point, unified: m.unified, has: m.controllers}
	if b.contained() {
		// It is made with its first container, and goes with its last: no supervisor lives there that would take it along.
		return b, t.probe(point, b.dir)
	}
	if err := t.mkdirAll(point, b.dir); err != nil {
		return base{}, err
	}
	if m.unified {
		t.delegate(&b, above)
	}
	return b, nil
}

// probe sees whether dir could be made, and leaves what lacks as it is.
func (t *Tree) probe(point, dir string) error {
	var lacks []string
	for at := dir; at != point; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		lacks = append(lacks, at)
	}
	err := t.mkdirAll(point, dir)
	for _, at := range lacks {
		_ = os.Remove(at)
	}
	return err
}

// mkdirAll makes dir and what lacks above it, up to the mount point.
func (t *Tree) mkdirAll(point, dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return writable(dir)
	}
	if dir != point {
		if err := t.mkdirAll(point, filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if err := t.cfg.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// writable asks whether we may make cgroups in dir; a base may be there from an earlier life as another user.
func writable(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// delegate gives the base of the unified hierarchy the controllers for limits, as far as it can have them.
func (t *Tree) delegate(b *base, above string) {
	text, err := os.ReadFile(filepath.Join(above, "cgroup.controllers"))
	if err != nil {
		return
	}
	offered := strings.Fields(string(text))
	for _, name := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(offered, name) {
			continue
		}
		err := enable(above, name)
		if err != nil && t.moveSelf(above) == nil {
			err = enable(above, name)
		}
		if err == nil {
			err = enable(b.dir, name)
		}
		if err != nil {
			t.miss(name, err)
			continue
		}
		b.has = append(b.has, name)
	}
}

// enable passes a controller on to the children of dir.
func enable(dir, controller string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	if text, err := os.ReadFile(file); err == nil && slices.Contains(strings.Fields(string(text)), controller) {
		return nil
	}
	return write(file, "+"+controller)
}

// moveSelf makes room: a cgroup that passes controllers on may hold no processes. Only if we are alone there.
func (t *Tree) moveSelf(above string) error {
	text, err := os.ReadFile(filepath.Join(above, "cgroup.procs"))
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(text)) != strconv.Itoa(os.Getpid()) {
		return errors.New("others are in our cgroup")
	}
	dir := filepath.Join(above, "agent")
	if err := t.cfg.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(os.Getpid()))
}

// write writes to a control file, which must exist. Files of the os package would be polled for, at four more system
// calls each, and this is on the road of every launch.
func write(file, text string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: file, Err: err}
	}
	_, err = unix.Write(fd, []byte(text))
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}
