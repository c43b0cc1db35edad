package fetcher

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// TestMain makes of this program the child that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(Main(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == "confined" {
		os.Exit(confined(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

func newFetcher(t *testing.T, change func(*Config)) *Fetcher {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Command, cfg.CacheDir, cfg.AgentID = []string{self, "child"}, t.TempDir(), "a-S0"
	cfg.StallTimeout, cfg.Log = 20*time.Second, slog.New(slog.NewTextHandler(t.Output(), nil))
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// box makes a sandbox with its files.
func box(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"stdout", "stderr"} {
		put(t, filepath.Join(dir, name), "", 0o644)
	}
	return dir
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func uri(value string, change ...func(*mesos.CommandInfo_URI)) *mesos.CommandInfo_URI {
	u := &mesos.CommandInfo_URI{Value: &value}
	for _, f := range change {
		f(u)
	}
	return u
}

func to(name string) func(*mesos.CommandInfo_URI) {
	return func(u *mesos.CommandInfo_URI) { u.OutputFile = &name }
}
func cached(u *mesos.CommandInfo_URI)     { u.Cache = proto.Bool(true) }
func executable(u *mesos.CommandInfo_URI) { u.Executable = proto.Bool(true) }
func whole(u *mesos.CommandInfo_URI)      { u.Extract = proto.Bool(false) }

// site answers with files and counts the requests for each path.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string]int
}

func serve(t *testing.T, files map[string]string) *site {
	t.Helper()
	s := &site{asked: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked[r.URL.Path]++
		s.mu.Unlock()
		if text, ok := files[r.URL.Path]; ok {
			_, _ = io.WriteString(w, text)
			return
		}
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/plain", http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case "/cut":
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "some")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/hang":
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/who":
			name, password, _ := r.BasicAuth()
			_, _ = io.WriteString(w, name+"|"+password)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

func TestFetch(t *testing.T) {
	home := t.TempDir()
	put(t, filepath.Join(home, "run.sh"), "#!/bin/sh\n", 0o755)
	put(t, filepath.Join(home, "data"), "local", 0o644)
	s := serve(t, map[string]string{"/plain": "content", "/a/b.txt": "b", "/q": "query", "/x.gz": pack(t, "inside")})
	f := newFetcher(t, func(c *Config) { c.FrameworksHome = home })
	dir := box(t)
	err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{
		uri(s.URL + "/plain"), uri(" "+s.URL+"/a/b.txt", executable), uri(s.URL+"/plain", to("deep/er/c")),
		uri(s.URL + "/moved"), uri(s.URL + "/q?a=1&b=2"), uri("file://" + home + "/run.sh"), uri("file://localhost" + home + "/data"),
		uri("data", to("relative")), uri(home+"/data", to("data2")), uri(s.URL + "/x.gz"), uri(s.URL+"/x.gz", to("d/y.gz")),
		uri(s.URL+"/x.gz", to("z.gz"), whole), uri(strings.Replace(s.URL, "http://", "http://joe:s3cret@", 1) + "/who"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"plain": "content", "b.txt": "b", "deep/er/c": "content", "moved": "content", "q?a=1&b=2": "query", "run.sh": "#!/bin/sh\n",
		"data": "local", "relative": "local", "data2": "local", "x": "inside", "d/y": "inside", "who": "joe|s3cret",
	} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]os.FileMode{"b.txt": 0o755, "plain": 0o644, "run.sh": 0o755, "data": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", name, info.Mode(), want, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "z")); err == nil {
		t.Error("what was not to be unpacked was")
	}
	log := read(t, filepath.Join(dir, "stderr"))
	if !strings.Contains(log, `fetched "`+s.URL+`/plain" to "plain": 7 bytes`) || strings.Contains(log, "s3cret") || strings.Contains(log, "joe") {
		t.Errorf("the log of the sandbox: %s", log)
	}
	if c := f.Counts(); c.Succeeded != 1 || c.Failed != 0 {
		t.Errorf("counted %+v", c)
	}
}

func pack(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWhatCannotBeFetchedIsSaid(t *testing.T) {
	s := serve(t, map[string]string{"/plain": "content"})
	secret := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	patient := newFetcher(t, func(c *Config) { c.MaxBytes = 5 })
	impatient := newFetcher(t, func(c *Config) { c.StallTimeout = 300 * time.Millisecond })
	for _, tc := range []struct {
		uri  *mesos.CommandInfo_URI
		want string
	}{
		{uri(s.URL + "/nothing"), `the server answered "404 Not Found", not 200`},
		{uri(s.URL + "/empty"), `the server answered "204 No Content", not 200`},
		{uri(s.URL + "/round"), "redirected more than 10 times"},
		{uri(s.URL + "/away"), "link-local"},
		{uri(s.URL + "/file"), `redirected to the scheme "file"`},
		{uri(s.URL + "/cut"), "cut after 4 bytes"},
		{uri(s.URL + "/hang"), "no data came for 300ms"},
		{uri(s.URL + "/plain"), "larger than allowed: more than 5 bytes"},
		{uri("http://169.254.169.254/latest/meta-data"), "link-local"},
		{uri("http://[fe80::1%25eth0]/x"), "link-local"},
		{uri("http://[::ffff:169.254.169.254]/x"), "link-local"},
		{uri("http://0.0.0.0/x"), "link-local"},
		{uri("http://joe:s3cret@127.0.0.1:1/x?token=abc"), `"http://***@127.0.0.1:1/x?token=***"`},
		{uri("http://joe:s3/cret@127.0.0.1:1/x"), `"http://***@127.0.0.1:1/x"`},
		{uri("http://127.0.0.1:1/x"), "connection refused"},
		{uri("http://no-such-host.invalid/x"), "no such host"},
		{uri("/no/such/file"), "no such file"},
		{uri(secret), "no regular file"},
		{uri(fifo), "no regular file"},
		{uri("file:///dev/zero"), "no regular file"},
		{uri("file://elsewhere/x"), "another machine"},
		{uri("relative/x"), "--frameworks-home"},
		{uri("s3://bucket/x"), "hadoop"},
		{uri("http://host"), "no path behind the host"},
		{uri("http://host/"), "no path behind the host"},
		{uri("http://host/a/"), "names no file"},
		{uri(""), "it is empty"},
		{uri("http://h/a'b"), "single quote"},
		{uri(`http://h/a\b`), "backslash"},
		{uri(s.URL+"/plain", to("../x")), "does not lie below the sandbox"},
		{uri(s.URL+"/plain", to("/x")), "does not lie below the sandbox"},
		{uri(s.URL+"/plain", to("")), "does not lie below the sandbox"},
		{uri(s.URL+"/plain", to("a/")), "no name of a file"},
		{uri(s.URL + "/stdout"), "the sandbox's own file"},
	} {
		dir, f := box(t), patient
		if tc.uri.GetValue() == s.URL+"/hang" {
			f = impatient
		}
		err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{tc.uri}})
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `cannot fetch "`) {
			t.Errorf("%q: got %v, want %q", tc.uri.GetValue(), err, tc.want)
			continue
		}
		if strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), "abc") {
			t.Errorf("%q: a secret is shown: %v", tc.uri.GetValue(), err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
			t.Errorf("%q: left behind %v, %v", tc.uri.GetValue(), left, err)
		}
	}
	if err := patient.Fetch(t.Context(), Request{Sandbox: box(t), User: "no-such-user-here", URIs: []*mesos.CommandInfo_URI{uri(s.URL + "/plain")}}); err == nil {
		t.Error("a user who does not exist was taken")
	}
}

func TestAddressesThatAreAllowed(t *testing.T) {
	allowed := []netip.Prefix{netip.MustParsePrefix("169.254.7.0/24")}
	for text, want := range map[string]bool{
		"169.254.169.254": true, "169.254.7.1": false, "::ffff:169.254.7.1": false, "64:ff9b::a9fe:a9fe": true, "64:ff9b::808:808": false,
		"fe80::1": true, "fd00:ec2::254": true, "fd00::1": false, "100.100.100.200": true, "224.0.0.1": true, "ff02::1": true,
		"0.0.0.0": true, "::": true, "127.0.0.1": false, "10.0.0.1": false, "8.8.8.8": false, "255.255.255.255": true,
	} {
		if got := refused(netip.MustParseAddr(text), allowed); got != want {
			t.Errorf("%s: refused %v, want %v", text, got, want)
		}
	}
}

func tarball(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "text of " + h.Name
			h.Size = int64(len(text))
		}
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, text)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zipped(t *testing.T, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range names {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(f, "text of "+name)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestArchives(t *testing.T) {
	s := serve(t, map[string]string{
		"/a.tgz": tarball(t, tar.Header{Name: "bin/tool", Typeflag: tar.TypeReg}), "/b.zip": zipped(t, "lib/part"),
		"/up.tgz":   tarball(t, tar.Header{Name: "../up", Typeflag: tar.TypeReg}),
		"/link.tgz": tarball(t, tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, tar.Header{Name: "out/harm", Typeflag: tar.TypeReg}),
		"/up.zip":   zipped(t, "../../up"), "/bad.tgz": "no archive",
	})
	f := newFetcher(t, nil)
	dir := box(t)
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{
		uri(s.URL + "/a.tgz"), uri(s.URL+"/b.zip", cached), uri(s.URL+"/a.tgz", executable, to("kept.tgz")),
	}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"bin/tool": "text of bin/tool", "lib/part": "text of lib/part"} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"a.tgz": true, "b.zip": false, "kept.tgz": true} { // of the cache only the contents
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", name, err == nil, want)
		}
	}
	for _, name := range []string{"/up.tgz", "/link.tgz", "/up.zip", "/bad.tgz"} {
		dir := filepath.Join(t.TempDir(), "in", "side")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(s.URL + name)}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
		if above, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(above) != 1 {
			t.Errorf("%s: beside the sandbox: %v, %v", name, above, err)
		}
	}
	if _, err := os.Stat("/tmp/harm"); err == nil {
		t.Error("an archive has written through a link")
	}
}

func TestALaunchThatIsKilledIsCancelledAtOnce(t *testing.T) {
	s := serve(t, nil)
	f := newFetcher(t, nil)
	for _, u := range []*mesos.CommandInfo_URI{uri(s.URL + "/hang"), uri(s.URL+"/hang", cached)} {
		ctx, cancel := context.WithCancelCause(t.Context())
		killed := errors.New("killed")
		done := make(chan error, 1)
		before := s.count("/hang")
		go func() { done <- f.Fetch(ctx, Request{Sandbox: box(t), URIs: []*mesos.CommandInfo_URI{u}}) }()
		until(t, func() bool { return s.count("/hang") > before })
		begun := time.Now()
		cancel(killed)
		if err := <-done; !errors.Is(err, killed) {
			t.Errorf("got %v, want the cause", err)
		}
		if took := time.Since(begun); took > 15*time.Second { // and not when nothing came for 20 s
			t.Errorf("it took %v", took)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Fetch(t.Context(), Request{URIs: []*mesos.CommandInfo_URI{uri("/x")}}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func until(t *testing.T, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
		pause()
	}
}

// pause lets others work for a moment.
func pause() {
	timer := time.NewTimer(2 * time.Millisecond)
	<-timer.C
}

func TestTheHadoopClient(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(home+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, home+"/bin/hadoop", "#!/bin/sh\n[ \"$3\" = hdfs://n/none ] && { echo \"cat: no such thing\" >&2; exit 1; }\nprintf '%s' \"$*\"\n", 0o755)
	f := newFetcher(t, func(c *Config) { c.HadoopHome = home })
	dir := box(t)
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri("hdfs://n/file")}}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir+"/file"); got != "fs -cat hdfs://n/file" {
		t.Errorf("got %q", got)
	}
	err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri("hdfs://n/none")}})
	if err == nil || !strings.Contains(err.Error(), "cat: no such thing") {
		t.Errorf("got %v", err)
	}
}

// Many launches at once: a slow one holds up nobody.
func TestASlowDownloadHoldsUpNobody(t *testing.T) {
	s := serve(t, map[string]string{"/plain": "content"})
	f := newFetcher(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	for range 8 {
		dir := box(t)
		slow.Go(func() { _ = f.Fetch(ctx, Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(s.URL + "/hang")}}) })
	}
	var failed atomic.Int32
	var quick sync.WaitGroup
	for range 8 {
		dir := box(t)
		quick.Go(func() {
			if f.Fetch(ctx, Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(s.URL+"/plain", cached)}}) != nil {
				failed.Add(1)
			}
		})
	}
	quick.Wait()
	if failed.Load() > 0 || s.count("/plain") != 1 {
		t.Errorf("%d failed, %d downloads", failed.Load(), s.count("/plain"))
	}
	cancel()
	slow.Wait()
}
