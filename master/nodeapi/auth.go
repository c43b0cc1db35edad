package nodeapi

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// The headers of an authenticated request and of its answer.
const (
	// headerTime is the sender's clock, or the receiver's in an answer, in Unix milliseconds.
	headerTime = "Starling-Time"
	// headerNonce is 16 random bytes in base64url, new for each request.
	headerNonce = "Starling-Nonce"
	// headerMAC is the HMAC-SHA256 in base64url.
	headerMAC = "Starling-Mac"
	// headerEpoch goes with status 409: the epoch that the agent has obeyed.
	headerEpoch = "Starling-Epoch"
)

const (
	// Window is how far the clock of a request may be from the receiver's, either way.
	Window = 2 * time.Minute
	// maxNonces bounds what a Verifier remembers: about 1,000 requests a second over the whole window, 10 MB. Beyond it
	// the oldest is forgotten and everything signed before it is refused, so nothing can be replayed all the same.
	maxNonces = 1 << 17

	nonceLen   = 16
	labelKey   = "starling node protocol 1"
	labelCall  = "starling request 1"
	labelReply = "starling reply 1"
)

var encoding = base64.RawURLEncoding

// errTime refuses a request for its clock alone: the signature is right. The sender may sign again by our clock.
var errTime = fmt.Errorf("%w: clock is outside of the window", ErrUnauthenticated)

// Keys returns the keys of the cluster: the first one signs, all are accepted. While the cluster's key is replaced there are two of them.
// It is asked for every request, from any goroutine; what it returns is neither modified nor kept. Where it returns none, nothing is
// accepted, neither here nor by others. A nil Keys switches authentication off.
type Keys func() [][]byte

// OneKey returns Keys that never change, nil (off) for an empty key.
func OneKey(clusterKey []byte) Keys {
	if len(clusterKey) == 0 {
		return nil
	}
	keys := [][]byte{clusterKey}
	return func() [][]byte { return keys }
}

// signing derives the key to sign with.
func (k Keys) signing() []byte {
	if all := k(); len(all) > 0 {
		return derive(all[0])
	}
	return nil
}

// derive makes the key of this protocol from a cluster key.
func derive(clusterKey []byte) []byte {
	key, err := hkdf.Key(sha256.New, clusterKey, nil, labelKey, sha256.Size)
	if err != nil {
		// The only errors are of lengths, which are constants here.
		panic("nodeapi: cannot derive key: " + err.Error())
	}
	return key
}

// mac authenticates the fields, each with its length, so that no two lists of fields run together.
func mac(key []byte, fields ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	var n [8]byte
	for _, f := range fields {
		binary.BigEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write(f)
	}
	return h.Sum(nil)
}

func requestMAC(key []byte, method, path, clock, nonce string, body []byte) []byte {
	return mac(key, []byte(labelCall), []byte(method), []byte(path), []byte(clock), []byte(nonce), body)
}

func replyMAC(key []byte, nonce string, status int, clock, epoch string, body []byte) []byte {
	return mac(key, []byte(labelReply), []byte(nonce), []byte(strconv.Itoa(status)), []byte(clock), []byte(epoch), body)
}

func sameMAC(want []byte, got string) bool {
	b, err := encoding.DecodeString(got)
	return err == nil && hmac.Equal(want, b)
}

// Signer signs requests. It is safe for use by several goroutines; a nil Signer signs nothing.
type Signer struct {
	keys Keys
	now  func() time.Time
}

// NewSigner returns a signer with the cluster's keys, nil (off) for nil ones. A nil now is time.Now.
func NewSigner(keys Keys, now func() time.Time) *Signer {
	if keys == nil {
		return nil
	}
	if now == nil {
		now = time.Now
	}
	return &Signer{keys: keys, now: now}
}

// sign returns the headers of a request; offset is what the receiver's clock is ahead of ours. The key is that which the answer is sealed with.
func (s *Signer) sign(method, path string, body []byte, offset time.Duration) (key []byte, clock, nonce, sum string) {
	key = s.keys.signing()
	var b [nonceLen]byte
	rand.Read(b[:]) // never fails: it ends the process instead
	clock = strconv.FormatInt(s.now().Add(offset).UnixMilli(), 10)
	nonce = encoding.EncodeToString(b[:])
	return key, clock, nonce, encoding.EncodeToString(requestMAC(key, method, path, clock, nonce, body))
}

// Verifier checks requests and seals answers. It is safe for use by several goroutines; a nil Verifier lets everything
// pass and seals nothing.
type Verifier struct {
	keys Keys
	now  func() time.Time
	cap  int

	mu sync.Mutex // guards what follows; never held while calling out
	// seen are the nonces of the window, and order the same from oldest to newest arrival.
	seen  map[[nonceLen]byte]struct{}
	order []taken
	// floor is the clock (Unix milliseconds) up to which requests are refused: nonces of that time were forgotten, or taken
	// by an earlier life of this process.
	floor int64
}

type taken struct {
	nonce [nonceLen]byte
	clock int64
}

// NewVerifier returns a verifier with the cluster's keys, nil (off) for nil ones. A now that is given must never go back;
// nil is the wall clock as it was now, advanced by the monotonic one, so that setting the machine's clock changes nothing.
func NewVerifier(keys Keys, now func() time.Time) *Verifier {
	if keys == nil {
		return nil
	}
	if now == nil {
		start := time.Now()
		now = func() time.Time { return start.Add(time.Since(start)) }
	}
	return &Verifier{
		keys: keys, now: now, cap: maxNonces, seen: make(map[[nonceLen]byte]struct{}), floor: now().UnixMilli() - 1,
	}
}

// seal is what the answer to an authentic request is authenticated with: the key and the nonce of the request. The key may not be the
// newest one, or one that is still accepted when the answer is made, but it is one that the sender knows. The zero seal is none.
type seal struct {
	key   []byte
	nonce string
}

// verify returns the seal for the answer to a request that is authentic and was not taken before. With errTime the seal is valid too; with any
// other error it is zero.
func (v *Verifier) verify(r Request) (seal, error) {
	clock, nonce := r.Header(headerTime), r.Header(headerNonce)
	sum := r.Header(headerMAC)
	if clock == "" || nonce == "" || sum == "" {
		return seal{}, fmt.Errorf("%w: signature is missing", ErrUnauthenticated)
	}
	key := v.signedWith(r, clock, nonce, sum)
	if key == nil {
		return seal{}, fmt.Errorf("%w: signature is wrong", ErrUnauthenticated)
	}
	// From here on the sender has the key; what is odd is a fault, not an attack by an outsider.
	var t taken
	raw, err := encoding.DecodeString(nonce)
	if err != nil || len(raw) != nonceLen {
		return seal{}, fmt.Errorf("%w: nonce is not of %d bytes", ErrUnauthenticated, nonceLen)
	}
	copy(t.nonce[:], raw)
	if t.clock, err = strconv.ParseInt(clock, 10, 64); err != nil {
		return seal{}, fmt.Errorf("%w: clock is not a number", ErrUnauthenticated)
	}
	err = v.take(t)
	if err != nil && !isTime(err) {
		return seal{}, err
	}
	return seal{key, nonce}, err
}

// signedWith returns the derived key that a request is signed with, nil if it is none that is accepted.
func (v *Verifier) signedWith(r Request, clock, nonce, sum string) []byte {
	for _, k := range v.keys() {
		key := derive(k)
		if sameMAC(requestMAC(key, r.Method, r.Path, clock, nonce, r.Body), sum) {
			return key
		}
	}
	return nil
}

// take remembers a nonce, or refuses it.
func (v *Verifier) take(t taken) error {
	now := v.now().UnixMilli()
	v.mu.Lock()
	defer v.mu.Unlock()
	oldest, newest := now-Window.Milliseconds(), now+Window.Milliseconds()
	if t.clock < oldest || t.clock > newest || t.clock <= v.floor {
		return errTime
	}
	if _, used := v.seen[t.nonce]; used {
		return fmt.Errorf("%w: request was taken before", ErrUnauthenticated)
	}
	// What has left the window can't be taken again; what is forgotten before it left raises the floor.
	for len(v.order) > 0 && (v.order[0].clock < oldest || len(v.order) >= v.cap) {
		v.floor = max(v.floor, min(v.order[0].clock, now))
		delete(v.seen, v.order[0].nonce)
		v.order = v.order[1:]
	}
	v.seen[t.nonce] = struct{}{}
	v.order = append(v.order, t)
	return nil
}

// headers returns the headers that authenticate an answer.
func (s seal) headers(now time.Time, status int, epoch string, body []byte) (clock, sum string) {
	clock = strconv.FormatInt(now.UnixMilli(), 10)
	return clock, encoding.EncodeToString(replyMAC(s.key, s.nonce, status, clock, epoch, body))
}

// isTime tells a refusal for the clock alone from others.
func isTime(err error) bool { return errors.Is(err, errTime) }
