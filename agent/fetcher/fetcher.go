package fetcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"starling/agent/sandbox"
	"starling/master/mesos"
)

// ErrClosed is returned once the fetcher was closed.
var ErrClosed = errors.New("the fetcher has ended")

// Config of a Fetcher. Start from DefaultConfig.
type Config struct {
	// Command starts the child: this program and the word that leads to Main.
	Command []string
	// CacheDir is the folder of the caches of all agents of this machine, absolute; AgentID names this one's in it.
	CacheDir, AgentID string
	// CacheSize is the most that the cache holds, in bytes; 0 is no cache. Default: 2 GiB.
	CacheSize int64
	// StallTimeout is how long a download may bring nothing. Default: 1 min.
	StallTimeout time.Duration
	// Timeout bounds all fetching of one launch. Default: 6 h.
	Timeout time.Duration
	// MaxBytes is the most that one URI may bring, in bytes; 0, the default, leaves that to the disk.
	MaxBytes int64
	// FrameworksHome is where relative paths begin; empty: they are refused.
	FrameworksHome string
	// HadoopHome is where the hadoop client is, for schemes that nothing else knows; empty: it is looked up in the PATH.
	HadoopHome string
	// AllowAddresses are networks that may be fetched from although they are link-local or serve the machine's metadata.
	AllowAddresses []netip.Prefix
	Log            *slog.Logger
}

// DefaultConfig returns a configuration with all defaults, which lacks what only the caller knows.
func DefaultConfig() Config {
	return Config{CacheSize: 2 << 30, StallTimeout: time.Minute, Timeout: 6 * time.Hour}
}

// Request is what one launch needs.
type Request struct {
	// User is whom the task runs as, by name or number; empty is the agent's own.
	User string
	// Sandbox is the folder to bring it to, absolute; it exists. A line for each URI, and what went wrong, is appended to
	// the file stderr in it, if there is one.
	Sandbox string
	// URIs are not modified.
	URIs []*mesos.CommandInfo_URI
}

// Counts are what was done since the start, and how full the cache is.
type Counts struct {
	Succeeded, Failed     uint64
	CacheBytes, CacheUsed int64
}

// Fetcher fetches for the launches of one agent. All methods may be called from any goroutine.
type Fetcher struct {
	cfg               Config
	cache             *cache
	succeeded, failed atomic.Uint64

	// life ends with Close, and with it all that is under way, which wg counts.
	life  context.Context
	close context.CancelCauseFunc
	mu    sync.Mutex
	wg    sync.WaitGroup
}

// New takes over what an earlier life left in the cache.
func New(cfg Config) (*Fetcher, error) {
	var faults []error
	if len(cfg.Command) == 0 || !filepath.IsAbs(cfg.Command[0]) {
		faults = append(faults, errors.New("the program to fetch with is not an absolute path"))
	}
	if !filepath.IsAbs(cfg.CacheDir) || !sandbox.Safe(cfg.AgentID) {
		faults = append(faults, fmt.Errorf("the cache %q of agent %q is not an absolute path", cfg.CacheDir, cfg.AgentID))
	}
	if cfg.StallTimeout <= 0 || cfg.Timeout <= 0 {
		faults = append(faults, errors.New("the timeouts are not positive"))
	}
	if cfg.CacheSize < 0 || cfg.MaxBytes < 0 {
		faults = append(faults, errors.New("a size is negative"))
	}
	if cfg.FrameworksHome != "" && !filepath.IsAbs(cfg.FrameworksHome) {
		faults = append(faults, fmt.Errorf("the frameworks' home %q is not an absolute path", cfg.FrameworksHome))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("cannot configure the fetcher: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c, err := openCache(filepath.Join(cfg.CacheDir, cfg.AgentID), cfg.CacheSize)
	if err != nil {
		return nil, err
	}
	f := &Fetcher{cfg: cfg, cache: c}
	f.life, f.close = context.WithCancelCause(context.Background())
	return f, nil
}

// Close ends what is under way and waits for it. What is in the cache stays.
func (f *Fetcher) Close() error {
	f.mu.Lock()
	f.close(ErrClosed)
	f.mu.Unlock()
	f.wg.Wait()
	f.cache.flying.Wait()
	return nil
}

// Counts returns the numbers for the metrics.
func (f *Fetcher) Counts() Counts {
	f.cache.mu.Lock()
	defer f.cache.mu.Unlock()
	return Counts{
		Succeeded: f.succeeded.Load(), Failed: f.failed.Load(), CacheBytes: f.cfg.CacheSize, CacheUsed: f.cache.used,
	}
}

// Fetch brings all URIs of a request into its sandbox and returns when they are there, or at the first that can't be had.
// When ctx ends it ends what it has started and returns the cause. What lies in the sandbox after an error is not to be
// used.
func (f *Fetcher) Fetch(ctx context.Context, req Request) error {
	if len(req.URIs) == 0 {
		return nil
	}
	f.mu.Lock()
	if f.life.Err() != nil {
		f.mu.Unlock()
		return ErrClosed
	}
	f.wg.Add(1)
	f.mu.Unlock()
	defer f.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.life, func() { cancel(ErrClosed) })()
	ctx, end := context.WithTimeoutCause(ctx, f.cfg.Timeout, fmt.Errorf("cannot fetch all within %v", f.cfg.Timeout))
	defer end()

	err := f.fetch(ctx, req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		f.succeeded.Add(1)
	case !errors.Is(err, context.Canceled):
		f.failed.Add(1)
	}
	return err
}

func (f *Fetcher) fetch(ctx context.Context, req Request) error {
	if err := Check(req.URIs); err != nil {
		return err
	}
	as, err := identityOf(req.User)
	if err != nil {
		return err
	}
	j := f.job(as)
	j.Sandbox = req.Sandbox
	var files []*os.File
	defer func() {
		for _, file := range files {
			_ = file.Close()
		}
	}()
	for _, uri := range req.URIs {
		it, err := f.item(uri)
		if err != nil {
			return err
		}
		if uri.GetCache() {
			file, err := f.cached(ctx, req.User, as, it)
			switch {
			case err == nil:
				files = append(files, file)
				it.FD = 2 + len(files)
			case errors.Is(err, errNoRoom):
				// It goes straight to the sandbox.
			default:
				return err
			}
		}
		j.Items = append(j.Items, it)
	}
	_, err = f.run(ctx, j, files)
	return err
}

// cached returns the file of the cache for an item, downloaded if need be.
func (f *Fetcher) cached(ctx context.Context, user string, as identity, it item) (*os.File, error) {
	// A download is as much under way as the launches that wait for it.
	return f.cache.get(ctx, keyOf(user, it.URI), func(ctx context.Context, to *os.File, limit int64) (mode os.FileMode, err error) {
		j := f.job(as)
		if j.MaxBytes == 0 || j.MaxBytes > limit {
			j.MaxBytes = limit
		}
		it.Fill, it.FD = true, 3
		j.Items = []item{it}
		a, err := f.run(ctx, j, []*os.File{to})
		if err != nil && f.cfg.MaxBytes > 0 && j.MaxBytes == f.cfg.MaxBytes && errors.Is(err, errTooLarge) {
			// Without the cache it would be as large.
			err = errors.New(err.Error())
		}
		return os.FileMode(a.Mode), err
	})
}

func (f *Fetcher) job(as identity) job {
	return job{
		As: as, Stall: f.cfg.StallTimeout, MaxBytes: f.cfg.MaxBytes, Allow: f.cfg.AllowAddresses, Hadoop: f.cfg.HadoopHome,
	}
}

// item makes a piece of work of a URI that was checked.
func (f *Fetcher) item(uri *mesos.CommandInfo_URI) (item, error) {
	s, err := parse(uri.GetValue())
	if err != nil {
		return item{}, err
	}
	name, err := target(uri)
	if err != nil {
		return item{}, err
	}
	it := item{
		URI: strings.TrimLeft(uri.GetValue(), " \t\r\n"), Target: name, Executable: uri.GetExecutable(),
		Extract: uri.GetExtract() && !uri.GetExecutable(),
	}
	if s.kind == local && !filepath.IsAbs(s.uri) {
		if f.cfg.FrameworksHome == "" {
			return item{}, fmt.Errorf("cannot fetch %q: a relative path begins at the frameworks' home, which is not set (--frameworks-home)", it.URI)
		}
		it.URI = filepath.Join(f.cfg.FrameworksHome, s.uri)
	}
	return it, nil
}

// identity is whom a child becomes.
type identity struct {
	Switch   bool
	UID, GID int
	Groups   []int
}

// identityOf looks up a user. Where the agent can't become another user, only its own will do.
func identityOf(name string) (identity, error) {
	if name == "" {
		return identity{}, nil
	}
	uid, gid, err := sandbox.Lookup(name)
	if err != nil {
		return identity{}, fmt.Errorf("cannot fetch as user %q: %w", name, err)
	}
	if uid == os.Geteuid() {
		return identity{}, nil
	}
	as := identity{Switch: true, UID: uid, GID: gid, Groups: []int{gid}}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return as, nil // a number without a name has no other groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return identity{}, fmt.Errorf("cannot fetch as user %q: cannot find its groups: %w", name, err)
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil && n != gid {
			as.Groups = append(as.Groups, n)
		}
	}
	return as, nil
}
