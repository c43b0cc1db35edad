// Package keyring is what the nodes of a cluster agree on when they change the cluster's secret, without network, disk or a clock.
//
// The model in five lines:
//
//   - A Ring holds one secret, or two while one replaces the other. The first one encrypts and signs; all are accepted.
//   - Every change of the ring is one step with the next serial: [A] -> [A B] (install) -> [B A] (use) -> [B] (remove).
//   - Nodes whose rings are one step apart, or none, understand each other both ways. Nodes two steps apart do not. So a step may
//     be taken only when every node is known to have taken the one before: that is the whole protocol.
//   - Of two rings the one that Beats the other wins everywhere, so nodes agree in the end however often they were told what.
//   - A secret is named by its fingerprint, which is public and tells nothing about it.
//
// Request is how somebody who knows the secret asks a node to replace it, over a road that is neither encrypted nor
// authenticated.
//
// Bad input is refused with ErrRing, ErrUnfinished or ErrRequest, and changes nothing.
package keyring

import (
	"bytes"
	"cmp"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// Secret is key material. It is never printed, nor written by encoding/json or log/slog.
type Secret []byte

const redacted = "[redacted]"

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// String hides the secret.
func (Secret) String() string { return redacted }

// GoString hides the secret.
func (Secret) GoString() string { return redacted }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// The lengths of a secret in bytes.
const (
	MinSecret = 16
	MaxSecret = 256
)

// Fingerprint names a secret without telling it: 16 hexadecimal digits, the same in every cluster. Empty for an empty secret.
func (s Secret) Fingerprint() string {
	if len(s) == 0 {
		return ""
	}
	return hex.EncodeToString(derive(s, "", "starling key fingerprint 1", 8))
}

// derive makes the key of one use, so that none tells the secret or another use's key.
func derive(s Secret, cluster, use string, length int) []byte {
	key, err := hkdf.Key(sha256.New, s, []byte(cluster), use, length)
	if err != nil {
		// The only errors are of lengths, which are constants here.
		panic("keyring: cannot derive key: " + err.Error())
	}
	return key
}

// MeshKey is the key that encrypts the mesh of a cluster: 32 bytes, for AES-256.
func (s Secret) MeshKey(cluster string) []byte { return derive(s, cluster, "starling mesh 1", 32) }

// Errors that callers may test for.
var (
	// ErrRing is wrapped by the error for a ring that cannot be: no or too many secrets, one twice, a serial beyond reach.
	ErrRing = errors.New("impossible keyring")
	// ErrUnfinished is wrapped by the error of Toward when the ring is between two secrets and neither is the one that is wanted.
	ErrUnfinished = errors.New("another rotation is not finished")
)

const (
	// MaxSecrets is the most secrets that a ring holds: one that comes, and one that goes.
	MaxSecrets = 2
	// maxSerial and maxJump bound what nobody gets to honestly. A ring at the end of all serials could never be replaced, so a forged
	// one does not get far in one step.
	maxSerial = 1 << 40
	maxJump   = 1 << 16
)

// Ring is the secrets of a cluster at one step. It is not modified once it is made. The zero Ring has no secret: nothing is
// encrypted.
type Ring struct {
	// Serial counts the steps since the cluster's first secret, which has serial 0.
	Serial uint64
	// Secrets are the secrets that are accepted. The first one encrypts and signs.
	Secrets []Secret
}

// Validate tells whether the ring can be one.
func (r Ring) Validate() error {
	if n := len(r.Secrets); n == 0 || n > MaxSecrets {
		return fmt.Errorf("%w: %d secrets", ErrRing, n)
	}
	if r.Serial > maxSerial {
		return fmt.Errorf("%w: serial %d", ErrRing, r.Serial)
	}
	for i, s := range r.Secrets {
		if len(s) < MinSecret || len(s) > MaxSecret {
			return fmt.Errorf("%w: a secret of %d bytes, %d to %d are allowed", ErrRing, len(s), MinSecret, MaxSecret)
		}
		if (Ring{Secrets: r.Secrets[:i]}).Contains(s) {
			return fmt.Errorf("%w: a secret twice", ErrRing)
		}
	}
	return nil
}

// Primary returns the secret that encrypts and signs; nil in the zero Ring.
func (r Ring) Primary() Secret {
	if len(r.Secrets) == 0 {
		return nil
	}
	return r.Secrets[0]
}

// Contains tells whether a secret is accepted.
func (r Ring) Contains(s Secret) bool {
	return slices.ContainsFunc(r.Secrets, func(o Secret) bool { return bytes.Equal(o, s) })
}

// Fingerprints names the secrets, in their order.
func (r Ring) Fingerprints() []string {
	names := make([]string, 0, len(r.Secrets))
	for _, s := range r.Secrets {
		names = append(names, s.Fingerprint())
	}
	return names
}

// Beats tells whether a ring is to be followed instead of another one: the later step, or of two that were taken at the same time
// the one that all nodes pick.
func (r Ring) Beats(o Ring) bool {
	if c := cmp.Compare(r.Serial, o.Serial); c != 0 {
		return c > 0
	}
	return slices.Compare(r.Fingerprints(), o.Fingerprints()) > 0
}

// Succeeds tells whether a ring may take the place of one that it Beats. They have a secret in common, or no node that holds the one
// can honestly have been told the other.
func (r Ring) Succeeds(o Ring) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if r.Serial > o.Serial+maxJump {
		return fmt.Errorf("%w: serial %d after %d", ErrRing, r.Serial, o.Serial)
	}
	if !slices.ContainsFunc(r.Secrets, o.Contains) {
		return fmt.Errorf("%w: it has no secret in common with the one held", ErrRing)
	}
	return nil
}

// Phase is how far the way to a secret is.
type Phase string

// The phases, in their order.
const (
	// Install is when all nodes get to know the new secret, and send with the old one.
	Install Phase = "install"
	// Use is when all nodes begin to send with the new secret, and still accept the old one.
	Use Phase = "use"
	// Remove is when all nodes forget the old secret. When all have, the rotation is done.
	Remove Phase = "remove"
)

// Phase tells how far a ring is on its way to a secret; empty when it does not contain that.
func (r Ring) Phase(to Secret) Phase {
	switch {
	case !r.Contains(to):
		return ""
	case !bytes.Equal(r.Primary(), to):
		return Install
	case len(r.Secrets) > 1:
		return Use
	default:
		return Remove
	}
}

// Toward returns the ring of the next step to one that holds only this secret; ok is false when there is none left to take. A ring that
// holds two secrets can be led to either of them, forth or back, and nowhere else: ErrUnfinished.
func (r Ring) Toward(to Secret) (next Ring, ok bool, err error) {
	next.Serial = r.Serial + 1
	switch r.Phase(to) {
	case Remove:
		return r, false, nil
	case Use:
		next.Secrets = []Secret{to}
	case Install:
		next.Secrets = []Secret{to, r.Primary()}
	default:
		if len(r.Secrets) != 1 {
			return r, false, fmt.Errorf("%w: the keyring holds %v, finish with one of these first", ErrUnfinished, r.Fingerprints())
		}
		next.Secrets = []Secret{r.Primary(), to}
	}
	if err := next.Validate(); err != nil {
		return r, false, err
	}
	return next, true, nil
}
