package marathon

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"starling/marathon/state"
	"starling/master/store"
)

// A backup is a tar archive: first an entry that describes it, then one for each document, named by its key.
//
// History of the format: 1, 2026-11, first version; "problems" came later.
const (
	backupHead   = "starling-marathon.json"
	backupFormat = 1
)

// maxBackup bounds the documents of a backup, keys and data together. They are restored in one transaction, which also removes
// what is there by then, and so names its keys.
const maxBackup = store.MaxTransaction / 4 * 3

type backupDescription struct {
	Format    int       `json:"format"`
	Made      time.Time `json:"made"`
	Documents int       `json:"documents"`
	// Problems are those that the documents had already.
	Problems []string `json:"problems,omitempty"`
}

// backUp writes all documents to a file, which is there as a whole or not at all. It makes none that could not be restored: where
// the history makes it too large it goes without.
func (m *Marathon) backUp(ctx context.Context, s store.Store, uri string, c *Carried) error {
	name, err := fileOf(m.cfg.Backups, uri)
	if err != nil {
		return err
	}
	docs, err := s.List(ctx, state.Prefix)
	if err != nil {
		return fmt.Errorf("%w: %w", errStoreReads, err)
	}
	problems, err := state.Verify(ctx, docs)
	if err != nil {
		return fmt.Errorf("the state makes no sense, so it is not backed up: %w", err)
	}
	if sizeOfAll(docs) > maxBackup {
		all := len(docs)
		if docs, err = state.Essential(ctx, docs); err != nil {
			return err
		}
		c.LeftOut = all - len(docs)
		if size := sizeOfAll(docs); size > maxBackup {
			return fmt.Errorf("%w: the state has %d bytes without its history, and %d can be restored", store.ErrTooLarge, size, maxBackup)
		}
	}
	c.Documents, c.Problems = len(docs), problems
	return writeBackup(m.cfg.Backups, name, m.cfg.Now(), docs, problems)
}

func sizeOfAll(docs []store.Document) int {
	size := 0
	for _, d := range docs {
		size += len(d.Key) + len(d.Data)
	}
	return size
}

// writeBackup makes the file below the folder, by way of another one, so that it is there as a whole or not at all. No link leads
// out of the folder.
func writeBackup(folder, name string, now time.Time, docs []store.Document, problems []string) error {
	head, err := json.Marshal(backupDescription{backupFormat, now.UTC(), len(docs), problems})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	defer root.Close()
	unfinished := name + ".unfinished"
	if err := root.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	f, err := root.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // for its owner alone: there may be secrets in it
	if err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	defer root.Remove(unfinished)
	out := tar.NewWriter(f)
	put := func(name string, data []byte) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: now}); err != nil {
			return err
		}
		_, err := out.Write(data)
		return err
	}
	err = put(backupHead, head)
	for _, d := range docs {
		if err == nil {
			err = put(d.Key, d.Data)
		}
	}
	if err := errors.Join(err, out.Close(), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	if err := root.Rename(unfinished, name); err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readBackup reads all documents of a backup, which has to be whole, and the problems that they had when it was made.
func readBackup(r io.Reader) ([]store.Document, []string, error) {
	in := tar.NewReader(r)
	next := func() (string, []byte, error) {
		h, err := in.Next()
		if err != nil {
			return "", nil, err
		}
		if h.Typeflag != tar.TypeReg || h.Size > store.MaxSize {
			return "", nil, fmt.Errorf("entry %q is no document", h.Name)
		}
		data, err := io.ReadAll(in)
		return h.Name, data, err
	}
	name, data, err := next()
	if err != nil {
		return nil, nil, err
	}
	var head backupDescription
	if err := json.Unmarshal(data, &head); name != backupHead || err != nil {
		return nil, nil, errors.New("it is no backup of a Marathon")
	}
	if head.Format != backupFormat {
		return nil, nil, fmt.Errorf("it has format %d, and this program knows %d", head.Format, backupFormat)
	}
	var docs []store.Document
	size := 0
	for {
		name, data, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if !strings.HasPrefix(name, state.Prefix) {
			return nil, nil, fmt.Errorf("entry %q is no document", name)
		}
		if size += len(name) + len(data); size > store.MaxTransaction {
			return nil, nil, fmt.Errorf("%w: it has more than %d bytes", store.ErrTooLarge, store.MaxTransaction)
		}
		docs = append(docs, store.Document{Key: name, Version: 1, Data: data})
	}
	if len(docs) != head.Documents {
		return nil, nil, fmt.Errorf("it has %d documents of %d", len(docs), head.Documents)
	}
	return docs, head.Problems, nil
}
