// Package clusterkey is the file that holds a cluster's key: a line of base64, made by "starling keygen".
package clusterkey

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"starling/gossip/keyring"
)

// length is that of a key, in bytes: 256 bits.
const length = 32

// New returns what the file of a new key holds, without the end of the line.
func New() string {
	key := make([]byte, length)
	rand.Read(key) // never fails (crypto/rand, Go 1.24)
	return base64.StdEncoding.EncodeToString(key)
}

// Read reads the key in the file that a flag names; errors say the flag's name or the path.
func Read(flag, path string) (keyring.Secret, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read --%s: %w", flag, err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(key) != length {
		return nil, fmt.Errorf("%s does not hold a cluster key; make one with starling keygen", path)
	}
	return key, nil
}

// Private returns an error if others than its user can read or write the file with a key.
func Private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s can be read or written by others (%s): chmod 600", path, mode)
	}
	return nil
}
