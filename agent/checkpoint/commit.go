package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"google.golang.org/protobuf/proto"
)

// Change is one thing to write. The messages in it must not be modified once it is handed over.
type Change struct {
	// what names what is changed: of several changes in a group with the same one, the last counts.
	what   string
	puts   []put
	remove []string
	ended  *digest
	intent bool
}

type put struct {
	name    string
	kind    kind
	message proto.Message
}

// PutTask writes the intent to run a task. It fails with ErrFull while the disk is.
func PutTask(t *Task) Change {
	name := filepath.Join(dirTasks, t.ContainerId+suffixTask)
	return Change{what: name, puts: []put{{name, kindTask, t}}, intent: true}
}

// PutState writes how far a task is.
func PutState(st *State) Change {
	name := filepath.Join(dirTasks, st.ContainerId+suffixState)
	return Change{what: name, puts: []put{{name, kindState, st}}}
}

// PutEpoch writes the highest epoch obeyed.
func PutEpoch(epoch uint64) Change {
	return Change{what: fileEpoch, puts: []put{
		{fileEpoch, kindEpoch, &Epoch{Epoch: epoch}},
		{fileEpochCopy, kindEpoch, &Epoch{Epoch: epoch}},
	}}
}

// PutResources writes what operations made of the node's resources, twice: no one file that does not read loses it.
func PutResources(r *Resources) Change {
	return Change{what: fileResources, puts: []put{{fileResources, kindResources, r}, {fileResCopy, kindResources, r}}}
}

// End forgets a task, and remembers that its id is used up. It takes the place of a PutState that still waits.
func End(containerID, framework, task string) Change {
	d := digestOf(framework, task)
	state := filepath.Join(dirTasks, containerID+suffixState)
	return Change{what: state, remove: []string{filepath.Join(dirTasks, containerID+suffixTask), state}, ended: &d}
}

// Probe changes nothing: it makes Commit look whether there is space again.
func Probe() Change { return Change{what: fileReserve} }

// Commit carries out changes of different things, in one go as far as the disk is concerned, and returns an error for each
// (nil for those that are on disk for good). One that failed changed nothing.
func (s *Store) Commit(changes []Change) []error {
	errs := make([]error, len(changes))
	if s.low.Load() {
		s.restoreReserve()
	}
	// First what says that ids are used up: the files are removed only after that.
	if err := s.appendEnded(changes); err != nil {
		for i, c := range changes {
			if c.ended != nil {
				errs[i] = err
			}
		}
	}
	var puts []put
	var owner []int
	for i, c := range changes {
		if c.intent && s.low.Load() {
			errs[i] = ErrFull
			continue
		}
		for _, p := range c.puts {
			puts, owner = append(puts, p), append(owner, i)
		}
	}
	for j, err := range s.writeAll(puts) {
		errs[owner[j]] = errors.Join(errs[owner[j]], err)
	}
	removed := map[string]bool{}
	for i, c := range changes {
		if errs[i] != nil {
			continue
		}
		for _, name := range c.remove {
			if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs[i] = fmt.Errorf("cannot remove checkpoint: %w", err)
			}
			delete(s.sizes, name)
			removed[filepath.Dir(name)] = true
		}
	}
	for dir := range removed {
		// The removal of a task that a power cut undoes is done again at the next start: the id is among the ended ones.
		if err := syncDir(filepath.Join(s.dir, dir)); err != nil {
			for i, c := range changes {
				if len(c.remove) > 0 && filepath.Dir(c.remove[0]) == dir {
					errs[i] = errors.Join(errs[i], err)
				}
			}
		}
	}
	return errs
}

// syncers is how many files are synced side by side: the file system joins their journal entries. More than 8 were not
// faster on the disks tried.
const syncers = 8

// writeAll writes files: each to a temporary file and synced, then all renamed, then each folder synced once. A state that
// is there already is appended to instead: making and removing a file for every update costs some file systems far more
// than the update, and flash its life.
func (s *Store) writeAll(puts []put) []error {
	writes := make([]write, len(puts))
	for i, p := range puts {
		size := s.sizes[p.name]
		writes[i] = write{put: p, size: size, appends: p.kind == kindState && size > 0 && size < stateMax}
	}
	errs := make([]error, len(puts))
	s.writeSide(writes, errs)
	if s.giveUpReserve(errs) {
		s.writeSide(writes, errs)
	}
	dirs := map[string][]int{}
	for i, w := range writes {
		path := filepath.Join(s.dir, w.name)
		switch {
		case errs[i] != nil && w.appends:
			// A part may be there. If it can't be cut off, the next write makes the file anew.
			if err := os.Truncate(path, w.size); err != nil {
				delete(s.sizes, w.name)
			}
		case errs[i] != nil:
		case w.appends:
			s.sizes[w.name] += w.written
		default:
			if err := os.Rename(path+suffixTemp, path); err != nil {
				errs[i] = fmt.Errorf("cannot write checkpoint: %w", err)
				continue
			}
			if w.kind == kindState {
				s.sizes[w.name] = w.written
			}
			dirs[filepath.Dir(path)] = append(dirs[filepath.Dir(path)], i)
		}
	}
	for dir, members := range dirs {
		if err := syncDir(dir); err != nil {
			for _, i := range members {
				errs[i] = err
			}
		}
	}
	return errs
}

// stateMax is the size at which the file of a state is made anew with the newest one alone.
const stateMax = 64 << 10

// write is one file to write.
type write struct {
	put
	// appends is set for a state that is there; size is how long the file is.
	appends bool
	size    int64
	written int64
}

// writeSide writes files side by side: all of them, or those that found no space the first time.
func (s *Store) writeSide(writes []write, errs []error) {
	retry := false
	for _, err := range errs {
		retry = retry || err != nil
	}
	next := make(chan int, len(writes))
	for i := range writes {
		if !retry || errors.Is(errs[i], syscall.ENOSPC) {
			next <- i
		}
	}
	close(next)
	var wg sync.WaitGroup
	for range min(syncers, len(next)) {
		wg.Go(func() {
			for i := range next {
				errs[i] = s.writeOne(&writes[i])
			}
		})
	}
	wg.Wait()
}

func (s *Store) writeOne(w *write) error {
	data, err := frame(w.kind, w.message)
	if err != nil {
		return err
	}
	w.written = int64(len(data))
	path := filepath.Join(s.dir, w.name)
	if w.appends {
		if err = os.Truncate(path, w.size); err == nil {
			err = writeSynced(path, os.O_WRONLY|os.O_APPEND, data)
		}
	} else if err = writeSynced(path+suffixTemp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, data); err != nil {
		os.Remove(path + suffixTemp)
	}
	if err != nil {
		return fmt.Errorf("cannot write checkpoint: %w", err)
	}
	return nil
}

func writeSynced(path string, flags int, data []byte) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot sync folder: %w", err)
	}
	return nil
}

// appendEnded adds the used-up ids of all changes to their file with one write and one sync.
func (s *Store) appendEnded(changes []Change) error {
	var buf []byte
	for _, c := range changes {
		if c.ended != nil {
			buf = c.ended.appendTo(buf)
		}
	}
	if len(buf) == 0 {
		return nil
	}
	path := filepath.Join(s.dir, fileEnded)
	if s.ended >= 2*EndedMax {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read checkpoint: %w", err)
		}
		all, _ := parseEnded(data)
		if err := s.rewriteEnded(all[max(0, len(all)-EndedMax):]); err != nil {
			return err
		}
	}
	_, statErr := os.Stat(path)
	before := int64(s.ended) * endedRecord
	err := writeSynced(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, buf)
	if errors.Is(err, syscall.ENOSPC) && s.giveUpReserve([]error{err}) {
		// A part may be there: cut it off, so that records stay aligned.
		if err = os.Truncate(path, before); err == nil {
			err = writeSynced(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, buf)
		}
	}
	if err != nil {
		// Whatever was written of it is cut off by the next start at the latest.
		if truncErr := os.Truncate(path, before); truncErr != nil && !errors.Is(truncErr, os.ErrNotExist) {
			err = errors.Join(err, truncErr)
		}
		return fmt.Errorf("cannot write checkpoint: %w", err)
	}
	s.ended += len(buf) / endedRecord
	if statErr != nil {
		return syncDir(s.dir)
	}
	return nil
}

func (s *Store) rewriteEnded(all []digest) error {
	buf := make([]byte, 0, len(all)*endedRecord)
	for _, d := range all {
		buf = d.appendTo(buf)
	}
	path := filepath.Join(s.dir, fileEnded)
	if err := writeSynced(path+suffixTemp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, buf); err != nil {
		return fmt.Errorf("cannot write checkpoint: %w", err)
	}
	if err := os.Rename(path+suffixTemp, path); err != nil {
		return fmt.Errorf("cannot write checkpoint: %w", err)
	}
	s.ended = len(all)
	return syncDir(s.dir)
}
