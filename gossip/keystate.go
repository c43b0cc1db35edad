package gossip

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"starling/gossip/keyring"
)

const (
	keyringFile    = "keyring.json"
	keyringVersion = 1
	// maxAncestors bounds the secrets that are remembered as forerunners of the ring; the operator's file is always one of them.
	maxAncestors = 64
)

// keyringState is the content of keyring.json.
type keyringState struct {
	Version int      `json:"version"`
	Serial  uint64   `json:"serial"`
	Secrets [][]byte `json:"secrets"` // the first one is used
	// Ancestors are fingerprints of secrets that this ring descends from, oldest first.
	Ancestors []string `json:"ancestors"`
}

func (s *stateDir) loadKeyring(log *slog.Logger) (keyring.Ring, []string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, keyringFile)
	if s.dir == "" {
		return keyring.Ring{}, nil, fs.ErrNotExist
	}
	info, err := os.Stat(path)
	if err != nil {
		return keyring.Ring{}, nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		log.Warn("the kept keyring could be read or written by others, its mode is mended", "path", path, "mode", info.Mode().Perm().String())
		if err := os.Chmod(path, 0o600); err != nil {
			return keyring.Ring{}, nil, err
		}
	}
	var f keyringState
	if err = s.read(keyringFile, &f); err == nil && f.Version != keyringVersion {
		err = fmt.Errorf("%s: version %d, this software knows %d", path, f.Version, keyringVersion)
	}
	r := keyring.Ring{Serial: f.Serial}
	for _, secret := range f.Secrets {
		r.Secrets = append(r.Secrets, secret)
	}
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		// Whoever mends it by hand still finds it.
		return keyring.Ring{}, nil, errors.Join(err, os.Rename(path, path+".damaged"))
	}
	return r, f.Ancestors[:min(len(f.Ancestors), maxAncestors)], nil
}

func (s *stateDir) saveKeyring(r keyring.Ring, ancestors []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := keyringState{Version: keyringVersion, Serial: r.Serial, Ancestors: ancestors}
	for _, secret := range r.Secrets {
		f.Secrets = append(f.Secrets, secret)
	}
	return s.write(keyringFile, f)
}

func (s *stateDir) dropKeyring() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.Remove(filepath.Join(s.dir, keyringFile))
}
