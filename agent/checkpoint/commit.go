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

// End forgets a task, and remembers that its id is used up. It takes the place of a PutState that still waits.
func End(containerID, framework, task string) Change {
	d := digestOf(framework, task)
	state := filepath.Join(dirTasks, containerID+suffixState)
	return Change{what: state, remove: []string{filepath.Join(dirTasks, containerID+suffixTask), state}, ended: &d}
}

// Probe changes nothing: it makes Commit look whether there is space again.
func Probe() Change { return Change{what: fileReserve} }

// Commit carries out changes, in one go as far as the disk is concerned, and returns an error for each (nil for those that
// are on disk for good). One that failed changed nothing.
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
	removed := false
	for i, c := range changes {
		if errs[i] != nil {
			continue
		}
		for _, name := range c.remove {
			if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs[i] = fmt.Errorf("cannot remove checkpoint: %w", err)
			}
			removed = true
		}
	}
	if removed {
		// A removal that a power cut undoes is done again at the next start: the id is among the ended ones.
		if err := syncDir(filepath.Join(s.dir, dirTasks)); err != nil {
			for i, c := range changes {
				if len(c.remove) > 0 {
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

// writeAll writes files: each to a temporary file and synced, then all renamed, then each folder synced once.
func (s *Store) writeAll(puts []put) []error {
	errs := make([]error, len(puts))
	s.writeTemporary(puts, errs)
	if s.giveUpReserve(errs) {
		s.writeTemporary(puts, errs)
	}
	dirs := map[string][]int{}
	for i, p := range puts {
		if errs[i] != nil {
			continue
		}
		path := filepath.Join(s.dir, p.name)
		if err := os.Rename(path+suffixTemp, path); err != nil {
			errs[i] = fmt.Errorf("cannot write checkpoint: %w", err)
			continue
		}
		dirs[filepath.Dir(path)] = append(dirs[filepath.Dir(path)], i)
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

// writeTemporary writes those files that are not written yet (errs[i] is nil at first, or ErrNoSpace the second time).
func (s *Store) writeTemporary(puts []put, errs []error) {
	var wg sync.WaitGroup
	next := make(chan int, len(puts))
	for i := range puts {
		next <- i
	}
	close(next)
	retry := false
	for _, err := range errs {
		retry = retry || err != nil
	}
	for range min(syncers, len(puts)) {
		wg.Go(func() {
			for i := range next {
				if retry && !errors.Is(errs[i], syscall.ENOSPC) {
					continue
				}
				errs[i] = s.writeOne(puts[i])
			}
		})
	}
	wg.Wait()
}

func (s *Store) writeOne(p put) error {
	data, err := frame(p.kind, p.message)
	if err != nil {
		return err
	}
	temp := filepath.Join(s.dir, p.name) + suffixTemp
	if err := writeSynced(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, data); err != nil {
		os.Remove(temp)
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
