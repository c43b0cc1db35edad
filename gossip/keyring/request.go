package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// Request asks a node to replace the cluster's secret. Whoever seals it proves to know a secret of the cluster, and nobody else can
// read it.
type Request struct {
	// Next is the secret that all nodes are to have in the end.
	Next Secret
	// Abandon goes on although nodes that cannot be reached may be left behind; see gossip.RotateOptions.
	Abandon bool
}

// ErrRequest is wrapped by the errors for a sealed request that does not open.
var ErrRequest = errors.New("rotation request refused")

const (
	requestVersion = 1
	// ChallengeSize is the length of a challenge in bytes.
	ChallengeSize = 32
	// MaxRequest bounds a sealed request in bytes.
	MaxRequest  = 1024
	nonceSize   = 12
	headerSize  = 1 + ChallengeSize + nonceSize
	flagAbandon = 1
)

// Seal encrypts and authenticates a request: AES-256-GCM under a key that is derived from a secret which the node holds, bound to the
// name of the cluster and to a challenge of the node. So it opens once, at one node, within the life of the challenge, and neither side's
// clock matters. The challenge has ChallengeSize bytes; one of another length is not answered.
//
//	version (1 byte)  challenge (32 bytes)  nonce (12 bytes)  sealed: flags (uvarint), secret (the rest)
func Seal(current Secret, cluster string, challenge []byte, r Request) []byte {
	var flags uint64
	if r.Abandon {
		flags |= flagAbandon
	}
	sealed := make([]byte, headerSize, MaxRequest)
	sealed[0] = requestVersion
	copy(sealed[1:1+ChallengeSize], challenge)
	nonce := sealed[1+ChallengeSize:]
	rand.Read(nonce) // never fails: it ends the process instead
	plain := append(binary.AppendUvarint(nil, flags), r.Next...)
	return requestCipher(current, cluster).Seal(sealed, nonce, plain, sealed[:1+ChallengeSize])
}

// Challenge returns the challenge that a sealed request answers; it is authentic once Open has succeeded.
func Challenge(sealed []byte) ([]byte, error) {
	if len(sealed) <= headerSize || len(sealed) > MaxRequest {
		return nil, fmt.Errorf("%w: %d bytes", ErrRequest, len(sealed))
	}
	if sealed[0] != requestVersion {
		return nil, fmt.Errorf("%w: version %d, this software knows %d", ErrRequest, sealed[0], requestVersion)
	}
	return sealed[1 : 1+ChallengeSize], nil
}

// Open opens a request that is sealed under one of the ring's secrets. The caller sees to the challenge.
func (r Ring) Open(cluster string, sealed []byte) (Request, error) {
	if _, err := Challenge(sealed); err != nil {
		return Request{}, err
	}
	for _, s := range r.Secrets {
		plain, err := requestCipher(s, cluster).Open(nil, sealed[1+ChallengeSize:headerSize], sealed[headerSize:], sealed[:1+ChallengeSize])
		if err != nil {
			continue
		}
		flags, n := binary.Uvarint(plain)
		if n <= 0 || flags > flagAbandon {
			return Request{}, fmt.Errorf("%w: it asks for what this software does not know", ErrRequest)
		}
		q := Request{Next: plain[n:], Abandon: flags&flagAbandon != 0}
		if len(q.Next) < MinSecret || len(q.Next) > MaxSecret {
			return Request{}, fmt.Errorf("%w: a secret of %d bytes, %d to %d are allowed", ErrRequest, len(q.Next), MinSecret, MaxSecret)
		}
		return q, nil
	}
	return Request{}, fmt.Errorf("%w: it is sealed with another key, or for another cluster", ErrRequest)
}

func requestCipher(s Secret, cluster string) cipher.AEAD {
	block, err := aes.NewCipher(derive(s, cluster, "starling rotation request 1", 32))
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err == nil {
			return aead
		}
	}
	// The only errors are of lengths, which are constants here.
	panic("keyring: cannot make cipher: " + err.Error())
}
