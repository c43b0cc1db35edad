package api

import (
	"encoding/json"
	"errors"
	"mime"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/gossip"
	"starling/gossip/keyring"
)

// Rotator is what the mesh has to do with its key.
type Rotator interface {
	// Keys returns what is known of the keys of all nodes, in order of names.
	Keys() []gossip.NodeKeys
	// Rotation returns what became of the last rotation that StartRotation began.
	Rotation() gossip.Rotation
	// RotationChallenge returns what a request for StartRotation has to answer.
	RotationChallenge() []byte
	// StartRotation opens a sealed request and starts the rotation that it asks for.
	StartRotation(sealed []byte) error
}

// Keys is what is to be known of the cluster's key. Keys are named by fingerprints, which tell nothing of them.
type Keys struct {
	// Encrypted is false where the node that answers has no key.
	Encrypted bool `json:"encrypted"`
	// Challenge is what a request for a rotation answers, within two minutes and at this node; see keyring.Seal.
	Challenge []byte     `json:"challenge"`
	Nodes     []NodeKeys `json:"nodes"`
	// Rotation is the last one that was begun at the node that answers, since it started.
	Rotation *Rotation `json:"rotation,omitempty"`
}

// NodeKeys is what one node says of its keys.
type NodeKeys struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Serial counts the steps of rotations that the node has taken.
	Serial uint64 `json:"serial"`
	// Primary is the key that the node sends with, Installed all that it accepts; empty where it says nothing.
	Primary   string   `json:"primary"`
	Installed []string `json:"installed"`
}

// Rotation is how far one is.
type Rotation struct {
	Running bool `json:"running"`
	// Target is the new key.
	Target  string `json:"target"`
	Abandon bool   `json:"abandon,omitempty"`
	// Phase is install, use or remove; empty before the first.
	Phase string `json:"phase"`
	// Acknowledged of Nodes have taken the phase, Waiting are those that have not.
	Acknowledged int       `json:"acknowledged"`
	Nodes        int       `json:"nodes"`
	Waiting      []string  `json:"waiting"`
	Started      time.Time `json:"started"`
	Ended        time.Time `json:"ended,omitzero"`
	// Error is why it ended before its end.
	Error string `json:"error,omitempty"`
}

// RotationRequest is the body of a POST: a request sealed by keyring.Seal.
type RotationRequest struct {
	Request []byte `json:"request"`
}

// maxRequest bounds the body that asks for a rotation, in bytes.
const maxRequest = 4 * keyring.MaxRequest

func (a *api) keys(c *fiber.Ctx) error {
	if c.Method() == fiber.MethodPost {
		return a.rotate(c)
	}
	k := Keys{Challenge: a.mesh.RotationChallenge(), Nodes: []NodeKeys{}, Rotation: a.rotation()}
	for _, n := range a.mesh.Keys() {
		s := a.mesh.Snapshot(n.Name)
		if s == nil {
			continue // reaped just now
		}
		k.Encrypted = k.Encrypted || n.Name == a.mesh.Self() && n.Primary != ""
		k.Nodes = append(k.Nodes, NodeKeys{n.Name, state(time.Now(), s), n.Serial, n.Primary, append([]string{}, n.Installed...)})
	}
	return write(c, k)
}

func (a *api) rotation() *Rotation {
	r := a.mesh.Rotation()
	if r.Target == "" {
		return nil
	}
	view := &Rotation{
		Running: r.Running, Target: r.Target, Abandon: r.Abandon, Phase: string(r.Phase), Acknowledged: r.Acknowledged, Nodes: r.Nodes,
		Waiting: append([]string{}, r.Waiting...), Started: r.Started, Ended: r.Ended,
	}
	if r.Err != nil {
		view.Error = r.Err.Error()
	}
	return view
}

// rotate starts a rotation. The request proves by itself that it comes from somebody who knows the key. It has to be sent as JSON, which a
// browser does not do for a page of somebody else's without asking first.
func (a *api) rotate(c *fiber.Ctx) error {
	if media, _, err := mime.ParseMediaType(c.Get(fiber.HeaderContentType)); err != nil || media != fiber.MIMEApplicationJSON {
		return fiber.NewError(fiber.StatusUnsupportedMediaType, "Expecting 'Content-Type' of application/json")
	}
	if len(c.Body()) > maxRequest {
		return fiber.ErrRequestEntityTooLarge
	}
	var q RotationRequest
	if err := json.Unmarshal(c.Body(), &q); err != nil {
		return fiber.NewError(fiber.StatusBadRequest, "the request is not the JSON that was expected: "+err.Error())
	}
	err := a.mesh.StartRotation(q.Request)
	for known, status := range map[error]int{
		keyring.ErrRequest: fiber.StatusForbidden, keyring.ErrRing: fiber.StatusBadRequest, keyring.ErrUnfinished: fiber.StatusConflict,
		gossip.ErrRotating: fiber.StatusConflict, gossip.ErrNoKey: fiber.StatusConflict, gossip.ErrNotRunning: fiber.StatusServiceUnavailable,
	} {
		if errors.Is(err, known) {
			return fiber.NewError(status, err.Error())
		}
	}
	if err != nil {
		return err
	}
	c.Status(fiber.StatusAccepted)
	return write(c, a.rotation())
}
