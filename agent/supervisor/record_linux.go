package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A record is a line "starling-container 1 <crc32c of the rest, 8 hex digits>\n" and JSON. Its file is always replaced
// as a whole. A record without a pid is an intent: a process may have been started, or not.
//
// History (fields are added, never given another meaning):
//
//	1  2026-11  first version; note; launcher
const recordMagic = "starling-container 1 "

type record struct {
	Container
	// Boot is the boot id of the time when the process was started.
	Boot string `json:"boot"`
	// Launcher is set in an intent whose process, if there is any, is a launcher: what it was to start never ran.
	Launcher bool `json:"launcher,omitempty"`
}

var errTorn = errors.New("record is damaged")

func (r *record) encode() ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s%08x\n", recordMagic, crc32.Checksum(body, castagnoli())), body...), nil
}

func decodeRecord(file []byte) (*record, error) {
	head, body, ok := bytes.Cut(file, []byte("\n"))
	sum, isRecord := bytes.CutPrefix(head, []byte(recordMagic))
	if !ok || !isRecord {
		return nil, errTorn
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(body, castagnoli()) {
		return nil, errTorn
	}
	r := new(record)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, fmt.Errorf("%w: %v", errTorn, err)
	}
	return r, nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// records is the folder of records. Its methods may be called concurrently for different ids.
type records struct {
	dir, quarantine string
}

func (s records) path(id string) string { return filepath.Join(s.dir, id+".c") }

// write replaces the record. With sync its content is on the disk afterwards, but its name only after syncDir. On a full disk
// it is written over the one that there is, which has its block already: a crash in that moment damages it, which is told,
// and an exit that can't be written for hours is told to nobody.
func (s records) write(r *record, sync bool) error {
	text, err := r.encode()
	if err != nil {
		return err
	}
	err = replaceFile(filepath.Join(s.dir, r.ID+".t"), s.path(r.ID), text, sync)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		if overwriteFile(s.path(r.ID), text, sync) == nil {
			return nil
		}
	}
	return err
}

func (s records) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (s records) remove(id string) error {
	err := os.Remove(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Read returns the containers that the records of a folder tell of, without asking the supervisor, and without touching
// anything: for when it hangs. Some may have ended since. One whose record is damaged, or of another boot, has no PID. A
// folder that is not there has none.
func Read(dir string) ([]Container, error) {
	dir = filepath.Join(dir, containersName)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the records: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	var all []Container
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".c")
		if !ok {
			continue
		}
		c := Container{ID: id}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			if r, err := decodeRecord(text); err == nil && r.ID == id {
				c = r.Container
				if r.Boot != boot {
					c.PID, c.Ticks = 0, 0
				}
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// load reads all records. Those that can't be read are moved to the quarantine, and their ids returned in torn with
// what was wrong.
func (s records) load() (whole []*record, torn map[string]error, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	torn = make(map[string]error)
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(s.dir, name)
		id, ok := strings.CutSuffix(name, ".c")
		if !ok {
			// A record that was never finished. What it would have replaced is still there.
			if strings.HasSuffix(name, ".t") {
				os.Remove(path)
			}
			continue
		}
		text, err := os.ReadFile(path)
		var r *record
		if err == nil {
			r, err = decodeRecord(text)
		}
		if err == nil && r.ID != id {
			err = fmt.Errorf("%w: it is of container %q", errTorn, r.ID)
		}
		if err != nil {
			torn[id] = err
			away := filepath.Join(s.quarantine, fmt.Sprintf("%s.%d", name, time.Now().UnixNano()))
			if len(filepath.Base(away)) > 255 {
				away = filepath.Join(s.quarantine, strconv.FormatInt(time.Now().UnixNano(), 10))
			}
			if e := os.Rename(path, away); e != nil {
				torn[id] = errors.Join(err, e)
			}
			continue
		}
		whole = append(whole, r)
	}
	return whole, torn, nil
}
