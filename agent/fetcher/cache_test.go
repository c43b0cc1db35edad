package fetcher

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"starling/master/mesos"
)

func fetchCached(t *testing.T, f *Fetcher, url string) string {
	t.Helper()
	dir := box(t)
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(url, cached, to("got"))}}); err != nil {
		t.Error(err)
		return ""
	}
	return read(t, filepath.Join(dir, "got"))
}

func TestTheCacheEvictsWhatWasUsedLongestAgo(t *testing.T) {
	big := strings.Repeat("x", 400)
	s := serve(t, map[string]string{"/a": "a" + big, "/b": "b" + big, "/c": "c" + big, "/huge": strings.Repeat("y", 2000)})
	dir := t.TempDir()
	f := newFetcher(t, func(c *Config) { c.CacheDir, c.CacheSize = dir, 1000 })
	for _, name := range []string{"/a", "/b", "/a", "/c", "/a", "/b"} {
		if got := fetchCached(t, f, s.URL+name); got != name[1:]+big {
			t.Errorf("%s: got %.5q", name, got)
		}
	}
	// c takes the place of b, which was used before a; then b comes anew.
	if a, b, c := s.count("/a"), s.count("/b"), s.count("/c"); a != 1 || b != 2 || c != 1 {
		t.Errorf("downloads: a %d, b %d, c %d", a, b, c)
	}
	if got := fetchCached(t, f, s.URL+"/huge"); len(got) != 2000 {
		t.Errorf("what the cache can't hold: %d bytes", len(got))
	}
	if c := f.Counts(); c.CacheUsed != 802 || c.CacheBytes != 1000 {
		t.Errorf("counted %+v", c)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	// What is not whole goes at the next start; the rest stays, and is not downloaded again.
	put(t, filepath.Join(dir, "a-S0", prefixFilling+"123"), "half", 0o600)
	put(t, filepath.Join(dir, "a-S0", "other"), "not ours", 0o600)
	f = newFetcher(t, func(c *Config) { c.CacheDir, c.CacheSize = dir, 1000 })
	if got := fetchCached(t, f, s.URL+"/a"); got != "a"+big || s.count("/a") != 1 {
		t.Errorf("after a restart: %.5q, %d downloads", got, s.count("/a"))
	}
	left, err := os.ReadDir(filepath.Join(dir, "a-S0"))
	if err != nil || len(left) != 3 {
		t.Errorf("in the cache: %v, %v", left, err)
	}
	// Less room than there is in use.
	f = newFetcher(t, func(c *Config) { c.CacheDir, c.CacheSize = dir, 500 })
	if c := f.Counts(); c.CacheUsed != 401 {
		t.Errorf("counted %+v", c)
	}
}

func TestACacheThatOthersCanWriteToIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/a-S0", 0o700), os.Chmod(dir+"/a-S0", 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := openCache(dir+"/a-S0", 1000); err == nil {
		t.Error("it was taken")
	}
}

func open(t *testing.T, size int64) *cache {
	t.Helper()
	c, err := openCache(t.TempDir(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.flying.Wait)
	return c
}

func TestOneDownloadForMany(t *testing.T) {
	c := open(t, 1000)
	begun, release := make(chan struct{}, 10), make(chan struct{})
	f := func(ctx context.Context, to *os.File, _ int64) (fs.FileMode, error) {
		begun <- struct{}{}
		select {
		case <-release:
			_, err := io.WriteString(to, "content")
			return 0o644, err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	// The first to ask gives up: the others have their file all the same.
	first, giveUp := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := c.get(first, keyOf("", "u"), f); gone <- err }()
	<-begun
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			file, err := c.get(t.Context(), keyOf("", "u"), f)
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close()
			if text, err := io.ReadAll(file); err != nil || string(text) != "content" {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
	until(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.flights[keyOf("", "u")].waiting == 21
	})
	giveUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	close(release)
	wg.Wait()
	if len(begun) != 0 {
		t.Errorf("%d downloads more than one", len(begun))
	}
}

func TestADownloadEndsWithTheLastWhoWaits(t *testing.T) {
	c := open(t, 1000)
	begun, ended := make(chan struct{}, 1), make(chan struct{})
	ctx, giveUp := context.WithCancel(t.Context())
	go func() { <-begun; giveUp() }()
	_, err := c.get(ctx, keyOf("", "u"), func(ctx context.Context, _ *os.File, _ int64) (fs.FileMode, error) {
		begun <- struct{}{}
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
	// The next begins anew, and what failed has left nothing.
	file, err := c.get(t.Context(), keyOf("", "u"), func(_ context.Context, to *os.File, _ int64) (fs.FileMode, error) {
		_, err := io.WriteString(to, "x")
		return 0o600, err
	})
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	c.flying.Wait()
	if left, err := os.ReadDir(c.dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Two downloads that do not fit together: one of them goes on without the cache.
func TestDownloadsThatGrowOutOfTheCache(t *testing.T) {
	c := open(t, 1000)
	grow := func(ctx context.Context, to *os.File, _ int64) (fs.FileMode, error) {
		for ctx.Err() == nil {
			if _, err := io.WriteString(to, "0123456789"); err != nil {
				return 0, err
			}
			pause()
		}
		return 0, context.Cause(ctx)
	}
	if _, err := c.get(t.Context(), keyOf("", "u"), grow); !errors.Is(err, errNoRoom) {
		t.Errorf("got %v", err)
	}
}
