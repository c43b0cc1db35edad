package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

var (
	// ErrLocked is returned by Open while another agent runs on the same folder.
	ErrLocked = errors.New("another agent runs on this folder")
	// ErrOtherAgent is returned by Open for a folder of an agent with another id.
	ErrOtherAgent = errors.New("the folder belongs to another agent")
	// ErrFull is the error of a new task while the disk is so full that the reserve had to be given up.
	ErrFull = errors.New("the disk of the work directory is full")
)

const (
	fileLock      = "lock"
	fileIdentity  = "identity"
	fileEpoch     = "epoch"
	fileEpochCopy = "epoch.copy"
	fileResources = "resources"
	fileResCopy   = "resources.copy"
	fileEnded     = "ended"
	fileReserve   = "reserve"
	fileDrain     = "drain"
	fileGone      = "gone"
	dirTasks      = "tasks"
	dirExecutors  = "executors"
	dirQuarantine = "quarantine"
	suffixTask    = ".task"
	suffixState   = ".state"
	suffixTemp    = ".tmp"

	quarantineMax = 64
)

// DefaultReserve is the size of the reserve in bytes.
const DefaultReserve = 16 << 20

// Options for Open.
type Options struct {
	// AgentID is whose folder it is.
	AgentID string
	// BootID is that of the machine now; empty where there is none.
	BootID string
	// Reserve is the size of the reserve in bytes; 0 means none.
	Reserve int64
	// Now is the wall clock, for the names of quarantined files; time.Now by default.
	Now func() time.Time
}

// Problem is one file that did not read.
type Problem struct {
	// Path was the file's; Kept is where it lies now.
	Path, Kept string
	Err        error
}

// String is a sentence for people.
func (p Problem) String() string {
	return fmt.Sprintf("%s did not read (%v) and was moved to %s", p.Path, p.Err, p.Kept)
}

// Item is what is known of one task. At least one of Task and State is set.
type Item struct {
	ContainerID string
	Task        *Task
	State       *State
}

// Loaded is what Open found.
type Loaded struct {
	// Epoch is the highest that was obeyed.
	Epoch uint64
	// Rebooted is set when the machine was started anew since: no process of before is alive.
	Rebooted bool
	// Items are the tasks, in order of container ids.
	Items []Item
	// Executors are the runs of executors that are not command tasks' own, in order of container ids.
	Executors []ExecutorItem
	// Lost are the ids of containers of which a file lies in quarantine and none reads.
	Lost  []string
	Ended *Ended
	// Drain is set while the agent is drained, Gone once it was told that it is gone for good.
	Drain *Drain
	Gone  bool
	// Resources is what operations made of the node's resources; nil where there were none, or where nothing of it reads.
	Resources *Resources
	// Nested are the containers that were launched over the API, oldest first.
	Nested []*Nested
	// Problems are the files that did not read this time.
	Problems []Problem
}

// Store is an open folder. Its methods may be called from any goroutine, but Commit from one at a time.
type Store struct {
	dir  string
	opts Options
	lock *os.File
	// low is set while the reserve is gone.
	low atomic.Bool
	// ended counts the records of that file; sizes holds how long the files of states are. Only Commit touches them.
	ended int
	sizes map[string]int64
}

// AgentID returns the id of the agent that a folder belongs to; ok is false for a folder that is new or does not say.
func AgentID(dir string) (id string, ok bool) {
	var identity Identity
	data, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if err != nil || unframe(data, kindIdentity, &identity) != nil {
		return "", false
	}
	return identity.AgentId, identity.AgentId != ""
}

// Agents returns the ids of the agents that the files of tasks in a folder name, in order, and how many such files there
// are: for a folder whose identity does not read. A file that does not read names nobody.
func Agents(dir string) (ids []string, files int, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, dirTasks))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, fmt.Errorf("cannot read folder: %w", err)
	}
	named := map[string]bool{}
	for _, e := range entries {
		suffix := filepath.Ext(e.Name())
		if suffix != suffixTask && suffix != suffixState {
			continue
		}
		files++
		data, err := os.ReadFile(filepath.Join(dir, dirTasks, e.Name()))
		if err != nil {
			return nil, 0, fmt.Errorf("cannot read checkpoint: %w", err)
		}
		task := &Task{}
		if suffix == suffixTask && unframe(data, kindTask, task) == nil {
			named[task.GetTask().GetAgentId().GetValue()] = true
		}
		if suffix == suffixState {
			state, _ := lastState(data)
			for _, st := range state.GetUpdates() {
				named[st.GetAgentId().GetValue()] = true
			}
		}
	}
	delete(named, "")
	return slices.Sorted(maps.Keys(named)), files, nil
}

// Open takes the lock of a folder, which is made if it lacks, and reads everything in it. What does not read does not
// fail the start: it is quarantined and told in Loaded.Problems.
func Open(dir string, opts Options) (*Store, *Loaded, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	for _, d := range []string{dir, filepath.Join(dir, dirTasks), filepath.Join(dir, dirExecutors), filepath.Join(dir, dirQuarantine)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, nil, fmt.Errorf("cannot make folder: %w", err)
		}
	}
	lock, err := takeLock(filepath.Join(dir, fileLock))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot lock %q: %w", dir, err)
	}
	s := &Store{dir: dir, opts: opts, lock: lock, sizes: map[string]int64{}}
	loaded, err := s.load()
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	return s, loaded, nil
}

// Close gives the folder free. Nothing may be committed afterwards.
func (s *Store) Close() error { return s.lock.Close() }

// Low tells whether the disk is so full that the reserve is gone: no new task is taken.
func (s *Store) Low() bool { return s.low.Load() }

func (s *Store) load() (*Loaded, error) {
	l := &Loaded{Ended: &Ended{}}
	if err := s.removeTemporary(); err != nil {
		return nil, err
	}
	if err := s.loadIdentity(l); err != nil {
		return nil, err
	}
	for _, name := range []string{fileEpoch, fileEpochCopy} {
		var epoch Epoch
		if ok, err := s.read(l, name, kindEpoch, &epoch); err != nil {
			return nil, err
		} else if ok {
			l.Epoch = max(l.Epoch, epoch.Epoch)
		}
	}
	if err := s.loadStanding(l); err != nil {
		return nil, err
	}
	for _, name := range []string{fileResources, fileResCopy} {
		res := &Resources{}
		if ok, err := s.read(l, name, kindResources, res); err != nil {
			return nil, err
		} else if ok && (l.Resources == nil || res.Sequence > l.Resources.Sequence) {
			l.Resources = res
		}
	}
	if err := s.loadEnded(l); err != nil {
		return nil, err
	}
	if err := s.loadNested(l); err != nil {
		return nil, err
	}
	if err := s.loadTasks(l); err != nil {
		return nil, err
	}
	if err := s.loadExecutors(l); err != nil {
		return nil, err
	}
	s.restoreReserve()
	return l, nil
}

// removeTemporary clears away what a crash left in the middle of a write.
func (s *Store) removeTemporary() error {
	for _, dir := range []string{s.dir, filepath.Join(s.dir, dirTasks), filepath.Join(s.dir, dirExecutors)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("cannot read folder: %w", err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), suffixTemp) {
				if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
					return fmt.Errorf("cannot clear away: %w", err)
				}
			}
		}
	}
	return nil
}

// read decodes a file of the folder; false means that it is not there, or did not read and is in quarantine now. An error
// is one of the disk: the content may be well, so nothing is moved and the start fails.
func (s *Store) read(l *Loaded, name string, k kind, m proto.Message) (bool, error) {
	path := filepath.Join(s.dir, name)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read checkpoint: %w", err)
	}
	err = unframe(data, k, m)
	if err == nil {
		return true, nil
	}
	return false, s.spoiled(l, name, err)
}

// spoiled quarantines a file that did not read.
func (s *Store) spoiled(l *Loaded, name string, err error) error {
	path := filepath.Join(s.dir, name)
	if !errors.Is(err, errCorrupt) {
		return fmt.Errorf("cannot read %q: %w", path, err)
	}
	kept, moveErr := s.quarantine(name)
	if moveErr != nil {
		return moveErr
	}
	l.Problems = append(l.Problems, Problem{Path: path, Kept: kept, Err: err})
	return nil
}

// readState reads the newest state of a file that was appended to. Where anything in it does not read, the file is
// quarantined; nil means that nothing was left.
func (s *Store) readState(l *Loaded, name string) (*State, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return nil, fmt.Errorf("cannot read checkpoint: %w", err)
	}
	state, err := lastState(data)
	if err == nil {
		s.sizes[name] = int64(len(data))
		return state, nil
	}
	if err := s.spoiled(l, name, err); err != nil || state == nil {
		return nil, err
	}
	if err := s.writeAll([]put{{name, kindState, state}})[0]; err != nil {
		return nil, err
	}
	return state, nil
}

// quarantine moves a file out of the way, and forgets the oldest of those kept when there are too many.
func (s *Store) quarantine(name string) (string, error) {
	dir := filepath.Join(s.dir, dirQuarantine)
	kept := filepath.Join(dir, fmt.Sprintf("%s.%d", filepath.Base(name), s.opts.Now().UnixNano()))
	if err := os.Rename(filepath.Join(s.dir, name), kept); err != nil {
		return "", fmt.Errorf("cannot quarantine: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("cannot read folder: %w", err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int {
		return cmp.Compare(filepath.Ext(a.Name()), filepath.Ext(b.Name()))
	})
	for i := 0; i < len(entries)-quarantineMax; i++ {
		if err := os.Remove(filepath.Join(dir, entries[i].Name())); err != nil {
			return "", fmt.Errorf("cannot clear quarantine: %w", err)
		}
	}
	return kept, nil
}

func (s *Store) loadIdentity(l *Loaded) error {
	var identity Identity
	ok, err := s.read(l, fileIdentity, kindIdentity, &identity)
	if err != nil {
		return err
	}
	if ok && s.opts.AgentID != identity.AgentId {
		return fmt.Errorf("%w: %q is of %q, this is %q", ErrOtherAgent, s.dir, identity.AgentId, s.opts.AgentID)
	}
	l.Rebooted = ok && identity.BootId != s.opts.BootID
	if ok && !l.Rebooted {
		return nil
	}
	mine := &Identity{AgentId: s.opts.AgentID, BootId: s.opts.BootID}
	if err := s.writeAll([]put{{fileIdentity, kindIdentity, mine}})[0]; err != nil {
		return fmt.Errorf("cannot write identity: %w", err)
	}
	return nil
}

func (s *Store) loadTasks(l *Loaded) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirTasks))
	if err != nil {
		return fmt.Errorf("cannot read folder: %w", err)
	}
	items := map[string]*Item{}
	known := func(id string) *Item {
		if items[id] == nil {
			items[id] = &Item{ContainerID: id}
		}
		return items[id]
	}
	for _, e := range entries {
		name := filepath.Join(dirTasks, e.Name())
		if id, ok := strings.CutSuffix(e.Name(), suffixTask); ok {
			task := &Task{}
			if ok, err := s.read(l, name, kindTask, task); err != nil {
				return err
			} else if ok {
				known(id).Task = task
			}
		} else if id, ok := strings.CutSuffix(e.Name(), suffixState); ok {
			state, err := s.readState(l, name)
			if err != nil {
				return err
			}
			if state != nil {
				known(id).State = state
			}
		}
	}
	for _, item := range items {
		l.Items = append(l.Items, *item)
	}
	slices.SortFunc(l.Items, func(a, b Item) int { return strings.Compare(a.ContainerID, b.ContainerID) })
	return s.loadLost(l, items)
}

// loadLost finds the containers that are known by the name of a quarantined file alone.
func (s *Store) loadLost(l *Loaded, items map[string]*Item) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirQuarantine))
	if err != nil {
		return fmt.Errorf("cannot read folder: %w", err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		id := strings.TrimSuffix(strings.TrimSuffix(name, suffixTask), suffixState)
		if id != name && items[id] == nil && !slices.Contains(l.Lost, id) {
			l.Lost = append(l.Lost, id)
		}
	}
	return nil
}

func (s *Store) loadEnded(l *Loaded) error {
	path := filepath.Join(s.dir, fileEnded)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot read checkpoint: %w", err)
	}
	all, clean := parseEnded(data)
	for _, d := range all {
		l.Ended.add(d)
	}
	s.ended = len(all)
	if clean {
		return nil
	}
	kept, err := s.quarantine(fileEnded)
	if err != nil {
		return err
	}
	l.Problems = append(l.Problems, Problem{
		Path: path, Kept: kept,
		Err: fmt.Errorf("%w: %d of its records read", errCorrupt, len(all)),
	})
	return s.rewriteEnded(all)
}
