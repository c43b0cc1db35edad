package marathon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"time"

	"starling/marathon/state"
	"starling/master/store"
)

// ErrHandover is returned where what an abdication asks of the next leader can't be done by any.
var ErrHandover = errors.New("handover is impossible")

// Handover is what the next leader does before it leads.
type Handover struct {
	// Backup and Restore name files in the folder of the backups of the next leader, which need not be this one; empty for neither.
	// Whoever asks may also give the file:// URI of a file in the folder of the present one. The backup is made first.
	Backup  string `json:"backup,omitempty"`
	Restore string `json:"restore,omitempty"`
	// Settle ends the doubt that a restore leaves behind: tasks that the state does not know are killed from then on. It is not
	// done where the backup before it fails.
	Settle bool `json:"settle,omitempty"`
	// AnotherFramework allows to restore a backup of another framework than the present one, whose tasks are strangers then.
	AnotherFramework bool `json:"anotherFramework,omitempty"`
}

// byName returns the handover with files by their names in the folder, since that of the next leader may be another one. It returns an
// ErrHandover that says what is wrong.
func (h Handover) byName(folder string) (Handover, error) {
	for _, file := range []*string{&h.Backup, &h.Restore} {
		if *file == "" {
			continue
		}
		name, err := fileOf(folder, *file)
		if err != nil {
			return Handover{}, fmt.Errorf("%w: %w", ErrHandover, err)
		}
		*file = filepath.ToSlash(name)
	}
	return h, nil
}

// fileOf is the file that a name or a URI means, as seen from the folder of the backups: whoever reaches the API may write there, and
// nowhere else.
func fileOf(folder, uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", fmt.Errorf("%q is no URI", uri)
	}
	name := filepath.FromSlash(u.Path)
	switch {
	case folder == "":
		return "", errors.New("there is no folder for backups")
	case u.Scheme == "" && u.Host == "" && !path.IsAbs(u.Path):
	case u.Scheme != "file" || u.Host != "" && u.Host != "localhost":
		return "", fmt.Errorf("%q does not begin with file:///, and nothing else is supported but the name of a file in the folder of the backups", uri)
	case !path.IsAbs(u.Path):
		return "", fmt.Errorf("%q does not name a file", uri)
	default:
		if name, err = filepath.Rel(folder, name); err != nil {
			return "", err
		}
	}
	switch {
	case u.Path == "" || path.Clean(u.Path) != u.Path || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q does not name a file", uri)
	case !filepath.IsLocal(name) || name == ".":
		return "", fmt.Errorf("%q is not in the folder of the backups, %s", uri, folder)
	}
	return name, nil
}

// uriOf is the URI of a file in the folder of the backups; it is empty for none.
func uriOf(folder, name string) string {
	if name == "" {
		return ""
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(folder, name))}).String()
}

// handoverKey is the document that holds the Handover for the next leader, as JSON with a format.
//
// History of the format: 1, 2026-11, first version.
const (
	handoverKey    = "handover/next"
	handoverFormat = 1
)

type handoverDocument struct {
	Format int `json:"format"`
	// Asked is when it was asked for.
	Asked time.Time `json:"asked"`
	Handover
}

// handoverAge is after what time nobody means a handover any more: whoever asked has been told that it failed, and a leader who
// comes by chance must not bring back an old state. It has room for clocks that differ.
const handoverAge = 10 * time.Minute

// leave keeps a handover for the next leader.
func (h Handover) leave(ctx context.Context, s store.Store, now time.Time) error {
	if h == (Handover{}) {
		return nil
	}
	data, err := json.Marshal(handoverDocument{handoverFormat, now, h})
	if err != nil {
		return err
	}
	_, err = s.Write(ctx, store.Op{Key: handoverKey, Version: store.Any, Data: data})
	return err
}

// carriedKey is the document that tells what came of the last handover that asked for a backup or a restore, for people.
//
// History of the format: 1, 2026-11, first version.
const (
	carriedKey    = "handover/last"
	carriedFormat = 1
)

// Carried is what came of a backup, a restore, or both.
type Carried struct {
	// At is when it was done.
	At time.Time `json:"at"`
	// Backup and Restore are the URIs of the files.
	Backup  string `json:"backup,omitempty"`
	Restore string `json:"restore,omitempty"`
	// Documents is how many were written or, with a restore, brought back.
	Documents int `json:"documents"`
	// LeftOut is how many old versions were left out of the backup since all together could not be restored.
	LeftOut int `json:"leftOut,omitempty"`
	// Dropped are the deployments that were under way when the backup was made, and are not taken up again.
	Dropped []string `json:"droppedDeployments,omitempty"`
	// Replaced is the URI of a backup of what was there before the restore.
	Replaced string `json:"replaced,omitempty"`
	// Problems are those of the documents in the backup, Error is why nothing was done; empty where all went well.
	Problems []string `json:"problems,omitempty"`
	Error    string   `json:"error,omitempty"`
}

type carriedDocument struct {
	Format int `json:"format"`
	Carried
}

// LastCarried is what came of the last backup or restore, nil for none that is known.
func (m *Marathon) LastCarried() *Carried { return m.carried.Load() }

// errStoreReads marks an error of the store, in what is otherwise about files.
var errStoreReads = errors.New("cannot read the stored state")

// takeOver does what the last leader left to be done, once. The error is one of the store, after which it is tried again; what
// can't be done is logged and given up, and then nothing of it is done.
func (m *Marathon) takeOver(ctx context.Context, s store.Store) error {
	m.recallCarried(ctx, s)
	d, err := s.Get(ctx, handoverKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	var h handoverDocument
	switch {
	case errors.Is(err, store.ErrDamaged):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(d.Data, &h); err != nil || h.Format != handoverFormat {
			m.log.Error("what the last leader asked for can't be read, and is not done", "err", err)
			h = handoverDocument{}
		}
	}
	if age := m.cfg.Now().Sub(h.Asked); h.Handover != (Handover{}) && age.Abs() > handoverAge {
		m.log.Error("what an earlier leader was asked for was never done, and is not done now", "backup", h.Backup, "restore", h.Restore,
			"settle", h.Settle, "dur", age.Round(time.Second))
		h = handoverDocument{}
	}
	ops := []store.Op{{Key: handoverKey, Version: store.Any, Delete: true}}
	settles := h.Settle && h.Restore == ""
	if h.Backup != "" || h.Restore != "" {
		c := Carried{At: m.cfg.Now().UTC(), Backup: uriOf(m.cfg.Backups, h.Backup), Restore: uriOf(m.cfg.Backups, h.Restore)}
		done, err := m.carry(ctx, s, h.Handover, &c)
		if errors.Is(err, errStoreReads) {
			return err
		}
		if err != nil {
			m.log.Error("backup or restore failed; the state is left as it is", "err", err)
			c.Error = err.Error()
			settles = false // it lets tasks be killed, and who asked wanted a backup from before that
		}
		if ops, err = appendCarried(append(ops, done...), c); err != nil {
			return err
		}
		defer m.carried.Store(&c)
	}
	if settles {
		settled, err := state.RestoredAt(m.cfg.Now())
		if err != nil {
			return err
		}
		ops = append(ops, store.Op{Key: state.Restored, Version: store.Any, Delete: true}, store.Op{Key: state.Settled, Version: store.Any, Data: settled})
	}
	_, err = s.Write(ctx, ops...)
	return err
}

// carry makes a backup, and finds the writes of a restore. The error is an errStoreReads, or one that another attempt would
// not mend.
func (m *Marathon) carry(ctx context.Context, s store.Store, h Handover, c *Carried) ([]store.Op, error) {
	if h.Backup != "" {
		if err := m.backUp(ctx, s, h.Backup, c); err != nil {
			return nil, err
		}
		m.log.Info("state backed up", "path", c.Backup, "documents", c.Documents, "left_out", c.LeftOut)
	}
	if h.Restore == "" {
		return nil, nil
	}
	ops, err := m.restore(ctx, s, h, c)
	if err != nil {
		return nil, err
	}
	m.log.Warn("state restored from a backup", "path", c.Restore, "documents", c.Documents, "replaced", c.Replaced, "dropped_deployments", len(c.Dropped))
	return ops, nil
}

func appendCarried(ops []store.Op, c Carried) ([]store.Op, error) {
	data, err := json.Marshal(carriedDocument{carriedFormat, c})
	if err != nil {
		return nil, err
	}
	return append(ops, store.Op{Key: carriedKey, Version: store.Any, Data: data}), nil
}

// recallCarried reads what came of the last handover. It is for people alone: what can't be read is not shown.
func (m *Marathon) recallCarried(ctx context.Context, s store.Store) {
	var c carriedDocument
	if d, err := s.Get(ctx, carriedKey); err == nil && json.Unmarshal(d.Data, &c) == nil && c.Format == carriedFormat {
		m.carried.Store(&c.Carried)
	}
}
