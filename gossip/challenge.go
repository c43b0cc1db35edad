package gossip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"starling/gossip/keyring"
)

// challenges are what requests of a rotation answer. None is remembered until it was answered: each proves by itself that this node has issued
// it, and when.
type challenges struct {
	key     [sha256.Size]byte // of this process
	started time.Time

	mu   sync.Mutex
	used map[[keyring.ChallengeSize]byte]time.Duration // when each may be forgotten; guarded by mu
}

const (
	challengeLife = 2 * time.Minute
	maxChallenges = 1024 // that are answered within their life
)

func (c *challenges) init() {
	rand.Read(c.key[:]) // never fails: it ends the process instead
	c.started, c.used = time.Now(), map[[keyring.ChallengeSize]byte]time.Duration{}
}

// issue makes a challenge: the time since the start (8 bytes), chance (8), and what proves that they are from here (16).
func (c *challenges) issue() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, keyring.ChallengeSize), uint64(time.Since(c.started)))
	b = b[:16]
	rand.Read(b[8:])
	return append(b, c.mac(b)...)
}

func (c *challenges) mac(b []byte) []byte {
	h := hmac.New(sha256.New, c.key[:])
	h.Write(b)
	return h.Sum(nil)[:keyring.ChallengeSize-16]
}

// take uses a challenge up.
func (c *challenges) take(b []byte) error {
	if len(b) != keyring.ChallengeSize || !hmac.Equal(b[16:], c.mac(b[:16])) {
		return fmt.Errorf("%w: the challenge is not of this node, or of an earlier life of it", keyring.ErrRequest)
	}
	now := time.Since(c.started)
	until := time.Duration(binary.BigEndian.Uint64(b)) + challengeLife
	if now > until {
		return fmt.Errorf("%w: the challenge is older than %v", keyring.ErrRequest, challengeLife)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for used, forget := range c.used {
		if now > forget {
			delete(c.used, used)
		}
	}
	if _, again := c.used[[keyring.ChallengeSize]byte(b)]; again {
		return fmt.Errorf("%w: it was made before", keyring.ErrRequest)
	}
	if len(c.used) >= maxChallenges {
		return fmt.Errorf("%w: too many requests", keyring.ErrRequest)
	}
	c.used[[keyring.ChallengeSize]byte(b)] = until
	return nil
}
