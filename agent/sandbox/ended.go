package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The file of ages: <work_dir>/slaves/ended, in JSON. History of the format:
//
//	1  2026-11: version, ended (path of a sandbox below the work directory -> seconds since its container ended)
const endedVersion = 1

type endedDoc struct {
	Version int              `json:"version"`
	Ended   map[string]int64 `json:"ended"`
}

// endedMax bounds what is read of the file, in bytes.
const endedMax = 64 << 20

func (l Layout) endedFile() string { return filepath.Join(l.workDir, "slaves", "ended") }

// loadEnded reads the file of ages; one that is not there says nothing.
func loadEnded(path string) (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, endedMax))
	if err != nil {
		return out, err
	}
	var doc endedDoc
	if err := json.Unmarshal(text, &doc); err != nil {
		return out, fmt.Errorf("%q: %w", path, err)
	}
	if doc.Version != endedVersion {
		return out, fmt.Errorf("%q has the version %d, which is not known here", path, doc.Version)
	}
	for rel, seconds := range doc.Ended {
		// An age out of reason is one that is not known.
		if filepath.IsLocal(rel) && seconds >= 0 && seconds < int64(100*365*24*time.Hour/time.Second) {
			out[rel] = time.Duration(seconds) * time.Second
		}
	}
	return out, nil
}

func encodeEnded(ended map[string]time.Duration) []byte {
	doc := endedDoc{Version: endedVersion, Ended: make(map[string]int64, len(ended))}
	for rel, age := range ended {
		doc.Ended[rel] = int64(age / time.Second)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil // there is nothing in it that could fail
	}
	return append(text, '\n')
}

// replace writes a file in place of another; a crash leaves the old or the new.
func replace(path string, text []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}
