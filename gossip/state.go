package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"starling/gossip/record"
)

// stateDir is what the mesh keeps on disk:
//
//	generation.json   {"version":1,"generation":N}                             before each start, and when it had to be raised
//	peers.json        {"version":1,"peers":[{"name":..,"addr":..,"seen":..}]}  when they are others, or were last seen later
//	keyring.json      {"version":1,"serial":N,"secrets":[..],"ancestors":[..]} when the key of the cluster is rotated
//
// They are written beside, synced and renamed. Nothing breaks if the first two are lost: the generation is learned from the peers, the
// peers from seeds. For the keyring the file that the operator gave takes its place, which is too old where that key was rotated away. A
// generation is a counter of starts with random low bits, so that a life that begins with an empty disk does not
// share a generation with an earlier one.
type stateDir struct {
	dir string // empty: nothing is kept

	mu    sync.Mutex // guards the files and what follows
	last  uint64
	peers []remembered // as they were last written, nil before; not modified
}

const (
	generationFile   = "generation.json"
	peersFile        = "peers.json"
	stateVersion     = 1
	generationRandom = 20 // bits
	// maxGeneration leaves room for one that outbids it.
	maxGeneration = record.MaxGeneration - 2<<generationRandom
	maxStateFile  = 1 << 20
	// peersStale is how old the times in the list of peers may be.
	peersStale = 10 * time.Minute
)

type generationState struct {
	Version    int    `json:"version"`
	Generation uint64 `json:"generation"`
}

type peersState struct {
	Version int          `json:"version"`
	Peers   []remembered `json:"peers"`
}

func openState(dir string) (*stateDir, error) {
	s := &stateDir{dir: dir}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var g generationState
	// A file that cannot be read, or cannot be true, is as good as lost; the peers know better.
	if err := s.read(generationFile, &g); err == nil && g.Generation <= maxGeneration {
		s.last = g.Generation
	}
	return s, nil
}

// nextGeneration returns a generation above the last one and above the given one, and keeps it. It is of use even if it could not be kept.
func (s *stateDir) nextGeneration(above uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if above = max(s.last, above); above > maxGeneration {
		above = s.last // nobody got there honestly
	}
	s.last = (above>>generationRandom+1)<<generationRandom | rand.Uint64N(1<<generationRandom)
	return s.last, s.write(generationFile, generationState{stateVersion, s.last})
}

func (s *stateDir) loadPeers() ([]remembered, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p peersState
	err := s.read(peersFile, &p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
		return nil, err // what was read of it before the fault is not worth having
	}
	return p.Peers[:min(len(p.Peers), maxRemembered)], err
}

// savePeers keeps the peers, which are not to be modified any more. A list that tells nothing new is not written: where disks are memory cards,
// each write wears them out, and may stall for seconds.
func (s *stateDir) savePeers(peers []remembered) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := func(a, b remembered) bool {
		return a.Name == b.Name && a.Addr == b.Addr && a.Seen.Sub(b.Seen).Abs() < peersStale
	}
	if s.peers != nil && slices.EqualFunc(peers, s.peers, same) {
		return nil
	}
	if err := s.write(peersFile, peersState{stateVersion, peers}); err != nil {
		return err
	}
	s.peers = peers
	return nil
}

func (s *stateDir) read(name string, v any) error {
	if s.dir == "" {
		return nil
	}
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxStateFile {
		return fmt.Errorf("%s has %d bytes", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	return nil
}

func (s *stateDir) write(name string, v any) (err error) {
	if s.dir == "" {
		return nil
	}
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(s.dir, name)); err != nil {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
