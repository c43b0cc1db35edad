package fetcher

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// errNoRoom is for a file that the cache can't take: it is fetched without.
var errNoRoom = errors.New("the cache has no room for it")

// prefixFilling marks files that are not whole.
const prefixFilling = "filling-"

// fillPoll is how often the growth of a download is looked at, so that it makes its room while it grows.
const fillPoll = 200 * time.Millisecond

// cache holds whole files on disk by what they are. A file that is evicted while somebody reads it is read to its end: who
// reads it has it open.
type cache struct {
	dir string
	max int64

	mu      sync.Mutex
	entries map[string]*entry
	flights map[string]*flight
	// used is the size of all entries; clock orders their uses.
	used  int64
	clock uint64
	// flying are the downloads, those included that nobody waits for any more.
	flying sync.WaitGroup
}

type entry struct {
	size int64
	last uint64
}

// flight is a download that several may wait for.
type flight struct {
	key string
	// waiting counts them; the download ends with the last, by cancel.
	waiting int
	cancel  context.CancelFunc
	size    int64
	// done is closed by who downloads; err may be read then.
	done chan struct{}
	err  error
}

// fill downloads to a file, at most limit bytes, and returns the mode that the file has where it comes from.
type fill func(ctx context.Context, to *os.File, limit int64) (fs.FileMode, error)

// openCache takes over what an earlier life left: whole files, by the time of their last use. All else is removed.
func openCache(dir string, size int64) (*cache, error) {
	c := &cache{dir: dir, max: size, entries: map[string]*entry{}, flights: map[string]*flight{}}
	if size <= 0 {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the cache of the fetcher: %w", err)
	}
	// A folder that somebody else could write to would let him choose what tasks run.
	info, err := os.Lstat(dir)
	if err == nil && (!info.IsDir() || info.Mode().Perm()&0o022 != 0) {
		err = fmt.Errorf("%q is no folder that only its owner can write to", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the cache of the fetcher: %w", err)
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the cache of the fetcher: %w", err)
	}
	type old struct {
		key  string
		size int64
		used time.Time
	}
	var whole []old
	for _, f := range found {
		info, err := f.Info()
		if err == nil && info.Mode().IsRegular() && isKey(f.Name()) {
			whole = append(whole, old{f.Name(), info.Size(), info.ModTime()})
		} else if strings.HasPrefix(f.Name(), prefixFilling) {
			_ = os.Remove(filepath.Join(dir, f.Name()))
		}
	}
	slices.SortFunc(whole, func(a, b old) int { return a.used.Compare(b.used) })
	for _, f := range whole {
		c.clock++
		c.entries[f.key] = &entry{size: f.size, last: c.clock}
		c.used += f.size
	}
	c.makeRoom()
	return c, nil
}

// keyOf names what a user gets for a URI.
func keyOf(user, uri string) string {
	sum := sha256.Sum256([]byte(user + "\x00" + uri))
	return hex.EncodeToString(sum[:])
}

func isKey(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == 2*sha256.Size
}

// get returns a file of the cache, opened for reading, which the caller closes; what is not there is downloaded by f, once
// however many ask for it. errNoRoom is for what the cache can't hold.
func (c *cache) get(ctx context.Context, key string, f fill) (*os.File, error) {
	if c.max <= 0 {
		return nil, errNoRoom
	}
	for range 3 {
		if file := c.take(key); file != nil {
			return file, nil
		}
		fl := c.join(key, f)
		select {
		case <-fl.done:
		case <-ctx.Done():
			c.leave(fl)
			return nil, context.Cause(ctx)
		}
		c.leave(fl)
		if fl.err != nil {
			return nil, fl.err
		}
	}
	// It was evicted each time before we could open it.
	return nil, errNoRoom
}

// take opens what is there, and marks it as used.
func (c *cache) take(key string) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	file, err := os.Open(c.path(key))
	if err != nil {
		// Somebody has cleaned up.
		c.drop(key)
		return nil
	}
	c.clock++
	e.last = c.clock
	now := time.Now()
	_ = os.Chtimes(c.path(key), now, now) // for the next life
	return file
}

// join returns the download of a key, started if need be.
func (c *cache) join(key string, f fill) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	fl := c.flights[key]
	if fl == nil {
		ctx, cancel := context.WithCancel(context.Background())
		fl = &flight{key: key, cancel: cancel, done: make(chan struct{})}
		c.flights[key] = fl
		c.flying.Go(func() { c.fly(ctx, fl, f) })
	}
	fl.waiting++
	return fl
}

func (c *cache) leave(fl *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fl.waiting--; fl.waiting == 0 {
		fl.cancel()
		c.land(fl)
	}
}

// land takes a download out: who comes next begins another one.
func (c *cache) land(fl *flight) {
	if c.flights[fl.key] == fl {
		delete(c.flights, fl.key)
	}
}

// fly downloads. It ends when all who wait for it have left.
func (c *cache) fly(ctx context.Context, fl *flight, f fill) {
	defer fl.cancel()
	name, size, err := c.download(ctx, fl, f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.land(fl)
	if err == nil {
		if err = os.Rename(name, c.path(fl.key)); err == nil {
			if c.entries[fl.key] != nil {
				c.drop(fl.key)
			}
			c.clock++
			c.entries[fl.key] = &entry{size: size, last: c.clock}
			c.used += size
			c.makeRoom()
		}
	}
	if err != nil && name != "" {
		_ = os.Remove(name)
	}
	fl.err = err
	close(fl.done)
}

// download fills a new file, and puts it on disk.
func (c *cache) download(ctx context.Context, fl *flight, f fill) (name string, size int64, err error) {
	file, err := os.CreateTemp(c.dir, prefixFilling)
	if err != nil {
		return "", 0, fmt.Errorf("cannot write to the cache of the fetcher: %w", err)
	}
	defer file.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ctx, fl, file, cancel)
	}()
	mode, err := f(ctx, file, c.max)
	if err != nil && errors.Is(context.Cause(ctx), errNoRoom) || errors.Is(err, errTooLarge) {
		err = errNoRoom
	}
	cancel(nil)
	<-watched
	if err == nil {
		// After a power cut it is whole or not there.
		err = errors.Join(file.Chmod(mode.Perm()), file.Sync())
	}
	if err != nil {
		return file.Name(), 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return file.Name(), 0, err
	}
	return file.Name(), info.Size(), nil
}

// watch makes room for a download while it grows, and ends it where there is none.
func (c *cache) watch(ctx context.Context, fl *flight, file *os.File, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(fillPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		info, err := file.Stat()
		if err != nil {
			return
		}
		c.mu.Lock()
		fl.size = info.Size()
		fits := c.makeRoom()
		c.mu.Unlock()
		if !fits {
			cancel(errNoRoom)
			return
		}
	}
}

// makeRoom evicts what was used longest ago until entries and downloads fit; false when downloads alone do not.
func (c *cache) makeRoom() bool {
	growing := int64(0)
	for _, fl := range c.flights {
		growing += fl.size
	}
	if growing > c.max {
		return false // nothing that goes would help
	}
	for c.used+growing > c.max && len(c.entries) > 0 {
		oldest := ""
		for key, e := range c.entries {
			if oldest == "" || e.last < c.entries[oldest].last {
				oldest = key
			}
		}
		_ = os.Remove(c.path(oldest))
		c.drop(oldest)
	}
	return c.used+growing <= c.max
}

func (c *cache) drop(key string) {
	c.used -= c.entries[key].size
	delete(c.entries, key)
}

func (c *cache) path(key string) string { return filepath.Join(c.dir, key) }
