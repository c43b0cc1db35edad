package image

import (
	"archive/tar"
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"starling/agent/image/imagetest"
	"starling/agent/testenv"
	"starling/master/mesos"
)

func logTo(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func configFor(t testing.TB, dir string) Config {
	c := DefaultConfig()
	c.Dir, c.Owner, c.Log = dir, t.TempDir(), logTo(t)
	c.PullTimeout, c.StallTimeout = 2*time.Minute, time.Minute
	return c
}

func open(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func store(t testing.TB, change ...func(*Config)) *Store {
	t.Helper()
	testenv.NeedRoot(t, "to unpack images")
	c := configFor(t, filepath.Join(t.TempDir(), "store"))
	for _, f := range change {
		f(&c)
	}
	return open(t, c)
}

func docker(name string) *mesos.Image {
	return &mesos.Image{Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: &name}}
}

func fresh(i *mesos.Image) *mesos.Image {
	i.Cached = proto.Bool(false)
	return i
}

// content is what a file of a prepared image has, seen through its layers.
func content(t testing.TB, p Prepared, name string) string {
	t.Helper()
	for _, dir := range append(slices.Clone(p.Layers), p.Root) {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && dir != "" {
			return string(b)
		}
	}
	return ""
}

func left(t testing.TB, s *Store, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(s.path(folder))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestEverySourceGivesTheSameImage(t *testing.T) {
	testenv.NeedRoot(t, "to unpack images")
	img := imagetest.Busybox(t, imagetest.WithEnv("A=1"), imagetest.WithUser("nobody"), imagetest.WithWorkDir("/www"),
		imagetest.WithEntrypoint("/bin/sh", "-c"), imagetest.WithStopSignal("SIGQUIT"),
		imagetest.WithLayer(imagetest.File{Name: "etc/motd", Body: "hi\n", Mode: 0o644}))
	reg := imagetest.Registry(t)
	remote := reg.Push(t, img, "team/busybox:1")
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	img.Archive(t, filepath.Join(dir, "bb.tar"), "busybox:1")
	img.Archive(t, filepath.Join(dir, "busybox:1.tar"), "busybox:1")
	img.Layout(t, filepath.Join(dir, "lay"), "1")
	img.Layout(t, filepath.Join(dir, "plain"), "")
	want := Image{
		Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"httpd", "-f", "-p", "8080", "-h", "/www"}, Env: []string{"PATH=/bin", "A=1"},
		WorkingDir: "/www", User: "nobody", StopSignal: "SIGQUIT", Ports: []string{"8080/tcp"},
	}
	for _, c := range []struct{ what, registry, name string }{
		{"registry", "", remote},
		{"registry, by digest", "", reg.Host + "/team/busybox@" + digest.String()},
		{"registry by default", reg.URL, "team/busybox:1"},
		{"folder of archives", dir, "bb"},
		{"folder of archives, by URL", "file://" + dir, "busybox:1"},
		{"folder with a layout", dir, "lay:1"},
		{"folder with a layout without names", dir, "plain"},
		{"registry beside a folder", dir, remote},
		{"layout", "", "oci:" + dir + "/lay:1"},
		{"layout by digest", "", "oci:" + dir + "/lay@" + digest.String()},
		{"archive", "", "docker-archive:" + dir + "/bb.tar"},
		{"archive by name", "", "docker-archive:" + dir + "/bb.tar:busybox:1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := store(t, func(cfg *Config) { cfg.Registry = c.registry })
			p, err := s.Prepare(t.Context(), "c1", docker(c.name), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			got := p.Image
			if got.Digest == "" || got.Name == "" {
				t.Errorf("name %q, digest %q", got.Name, got.Digest)
			}
			got.Name, got.Digest, got.Architecture = "", "", ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("image (-want +got):\n%s", diff)
			}
			if len(p.Layers) != 2 || content(t, p, "etc/motd") != "hi\n" || content(t, p, "www/index.html") != imagetest.Hello {
				t.Errorf("layers %v lack what is in the image", p.Layers)
			}
			if held, err := s.Held(t.Context()); err != nil || !slices.Equal(held, []string{"c1"}) {
				t.Errorf("held by %v, %v; want c1", held, err)
			}
			if err := s.Release(t.Context(), "c1"); err != nil {
				t.Error(err)
			}
			if held, err := s.Held(t.Context()); err != nil || len(held) > 0 {
				t.Errorf("held by %v, %v after the release", held, err)
			}
		})
	}
}

func TestWhatLacksIsSaidPlainly(t *testing.T) {
	testenv.NeedRoot(t, "to unpack images")
	reg := imagetest.Registry(t)
	dir := t.TempDir()
	img := imagetest.New(t, []imagetest.File{{Name: "f", Body: "x", Mode: 0o600}})
	img.Archive(t, filepath.Join(dir, "one.tar"), "one:1")
	img.Layout(t, filepath.Join(dir, "two"), "a")
	img.Layout(t, filepath.Join(dir, "two"), "b")
	if err := os.WriteFile(filepath.Join(dir, "junk.tar"), []byte(strings.Repeat("junk", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := store(t, func(c *Config) { c.Registry = dir })
	for _, c := range []struct{ name, want string }{
		{reg.Host + "/no/such:1", "NAME_UNKNOWN: Unknown name"},
		{reg.Host + "/no/such:1", reg.Host},
		{reg.Host + "/no/such:1", "linux/"},
		{"127.0.0.1:1/x", "connection refused"},
		{"lacks:9", dir + "/lacks:9.tar"},
		{"one:2", `"one:2" is not among ["one:1"]`},
		{"oci:" + dir + "/two:c", `"c" is not among ["a" "b"]`},
		{"oci:" + dir + "/two", `is not among ["a" "b"]`},
		{"docker-archive:" + dir + "/lacks.tar", "no such image"},
		{"docker-archive:" + dir + "/one.tar:other:2", `"other:2" is not among ["one:1"]`},
		{"docker-archive:" + dir + "/junk.tar", "cannot read archive"},
		{"oci:relative", "absolute"},
		{"UPPER CASE", "no name of an image"},
		{"../../etc/passwd", "no name of an image"},
		{"a/../../b", "no name of an image"},
		{"", "no name"},
		{"registry.example.com:80/x@sha256:12", "no name of an image"},
	} {
		_, err := s.Prepare(t.Context(), "c1", docker(c.name), dir)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want it to say %q", c.name, err, c.want)
		}
	}
	appc := &mesos.Image{Type: mesos.Image_APPC.Enum(), Appc: &mesos.Image_Appc{Name: proto.String("x")}}
	if _, err := s.Prepare(t.Context(), "c1", appc, dir); err == nil || !strings.Contains(err.Error(), "APPC") {
		t.Errorf("an image of another type: %v", err)
	}
	for _, id := range []string{"", "../x", ".", "a/b"} {
		if _, err := s.Prepare(t.Context(), id, docker("one"), dir); err == nil {
			t.Errorf("container %q was prepared", id)
		}
	}
	if held, _ := s.Held(t.Context()); len(held) > 0 {
		t.Errorf("failures left the pins of %v", held)
	}
	if n := left(t, s, "layers"); len(n) > 0 {
		t.Errorf("failures left layers %v", n)
	}
}

func TestOtherPlatformIsRefusedAndTheRightOneChosen(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	name, right := pushIndex(t, reg, s.platform)
	got, err := s.Pull(t.Context(), docker(name))
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != right {
		t.Errorf("got %s, want %s", got.Digest, right)
	}
	other := s.platform
	other.Architecture = "s390x"
	name, _ = pushIndex(t, reg, other)
	if _, err := s.Pull(t.Context(), docker(name)); err == nil || !strings.Contains(err.Error(), "there is none for "+s.platform.String()) || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("an image for others: %v", err)
	}
}

func TestKnownNamesWorkOfflineUnlessFresh(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	one := small(t, 1)
	reg.Push(t, one, "x:1")
	f := before(t, reg, nil)
	if _, err := s.Pull(t.Context(), docker(f.host+"/x:1")); err != nil {
		t.Fatal(err)
	}
	first, _ := s.Pull(t.Context(), docker(f.host+"/x:1"))
	before := f.all.Load()
	reg.Push(t, small(t, 2), "x:1")
	if again, err := s.Pull(t.Context(), docker(f.host+"/x:1")); err != nil || again.Digest != first.Digest || f.all.Load() != before {
		t.Errorf("a cached image: %s, %v, %d requests; want %s without any", again.Digest, err, f.all.Load()-before, first.Digest)
	}
	moved, err := s.Pull(t.Context(), fresh(docker(f.host+"/x:1")))
	if err != nil || moved.Digest == first.Digest {
		t.Errorf("a fresh look: %s, %v; want another than %s", moved.Digest, err, first.Digest)
	}
	f.Close()
	if _, err := s.Pull(t.Context(), fresh(docker(f.host+"/x:1"))); err == nil {
		t.Error("a fresh look succeeded without the registry")
	}
	if again, err := s.Pull(t.Context(), docker(f.host+"/x:1")); err != nil || again.Digest != moved.Digest {
		t.Errorf("without the registry: %s, %v; want %s", again.Digest, err, moved.Digest)
	}
	reopened := open(t, s.config)
	if again, err := reopened.Pull(t.Context(), docker(f.host+"/x:1")); err != nil || again.Digest != moved.Digest {
		t.Errorf("without the registry, after a restart: %s, %v; want %s", again.Digest, err, moved.Digest)
	}
}

func TestChangedArchiveIsSeen(t *testing.T) {
	dir := t.TempDir()
	s := store(t, func(c *Config) { c.Registry = dir })
	file := filepath.Join(dir, "x.tar")
	small(t, 1).Archive(t, file, "x:latest")
	first, err := s.Pull(t.Context(), docker("x"))
	if err != nil {
		t.Fatal(err)
	}
	small(t, 2).Archive(t, file, "x:latest")
	second, err := s.Pull(t.Context(), docker("x"))
	if err != nil || second.Digest == first.Digest {
		t.Errorf("after the archive changed: %s, %v; want another than %s", second.Digest, err, first.Digest)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if third, err := s.Pull(t.Context(), docker("x")); err != nil || third.Digest != second.Digest {
		t.Errorf("after the archive went: %s, %v; want %s", third.Digest, err, second.Digest)
	}
}

func TestLimitsOfAnImage(t *testing.T) {
	reg := imagetest.Registry(t)
	name := reg.Push(t, small(t, 5), "x:1")
	for what, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"layers":   {func(c *Config) { c.MaxLayers = 4 }, "5 layers; 4 are allowed"},
		"bytes":    {func(c *Config) { c.MaxBytes = 300_000 }, "300000 are allowed"},
		"a layer":  {func(c *Config) { c.MaxBytes = 1000 }, "more than 1000 bytes"},
		"the disk": {func(c *Config) { c.Reserve = 1 << 60 }, "no space"},
	} {
		s := store(t, c.change)
		if _, err := s.Prepare(t.Context(), "c", docker(name), t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want it to say %q", what, err, c.want)
		}
	}
}

func TestCopyWhereNoOverlayCanBeHad(t *testing.T) {
	s := store(t, func(c *Config) { c.Backend = "copy" })
	reg := imagetest.Registry(t)
	img := imagetest.New(t,
		[]imagetest.File{
			{Name: "keep", Body: "keep", Mode: 0o4755, UID: 5},
			{Name: "gone", Body: "x", Mode: 0o644},
			{Name: "d/one", Body: "1", Mode: 0o600},
			{Name: "e/two", Body: "2", Mode: 0o600},
			{Name: "hard", Link: "keep", Type: tar.TypeLink},
			{Name: "l", Link: "/etc", Type: tar.TypeSymlink},
		},
		[]imagetest.File{
			{Name: ".wh.gone", Mode: 0o600},
			{Name: "d/.wh..wh..opq", Mode: 0o600},
			{Name: "d/three", Body: "3", Mode: 0o600},
			{Name: ".wh.e", Mode: 0o600},
			{Name: "l/", Type: tar.TypeDir, Mode: 0o755},
			{Name: "l/four", Body: "4", Mode: 0o600},
		})
	name := reg.Push(t, img, "x:1")
	dir := t.TempDir()
	for range 2 { // the second time it is what is there
		p, err := s.Prepare(t.Context(), "c1", docker(name), dir)
		if err != nil || p.Root != filepath.Join(dir, "rootfs") || p.Layers != nil {
			t.Fatalf("%+v, %v", p, err)
		}
		var got []string
		if err := filepath.WalkDir(p.Root, func(name string, _ os.DirEntry, err error) error {
			got = append(got, strings.TrimPrefix(name, p.Root))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"", "/d", "/d/three", "/hard", "/keep", "/l", "/l/four"}; !slices.Equal(got, want) {
			t.Errorf("the copy has %q, want %q", got, want)
		}
		a, _ := os.Stat(filepath.Join(p.Root, "keep"))
		b, _ := os.Stat(filepath.Join(p.Root, "hard"))
		if !os.SameFile(a, b) || a.Mode() != 0o755|os.ModeSetuid {
			t.Errorf("mode %v, same file %v", a.Mode(), os.SameFile(a, b))
		}
	}
	if err := s.Release(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("the release left %v", entries)
	}
}

func TestImageOfNothing(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	dir := t.TempDir()
	p, err := s.Prepare(t.Context(), "c1", docker(reg.Push(t, imagetest.New(t), "nothing:1")), dir)
	if err != nil || p.Root == "" {
		t.Fatalf("%+v, %v", p, err)
	}
	if entries, err := os.ReadDir(p.Root); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// FuzzArchive: whatever is in an archive, nothing is left of one that is not taken.
func FuzzArchive(f *testing.F) {
	testenv.NeedRoot(f, "to unpack images")
	dir := f.TempDir()
	imagetest.New(f, []imagetest.File{{Name: "f", Body: "x", Mode: 0o600}}).Archive(f, filepath.Join(dir, "x.tar"), "x:1")
	b, err := os.ReadFile(filepath.Join(dir, "x.tar"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("junk"))
	c := configFor(f, filepath.Join(dir, "store"))
	c.Log, c.MaxBytes = nil, 1<<20
	s := open(f, c)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := filepath.Join(dir, "fuzzed.tar")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prepare(t.Context(), "c", docker("docker-archive:"+p), dir); err == nil {
			if err := s.Release(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
		}
		if held, err := s.Held(t.Context()); err != nil || len(held) > 0 {
			t.Errorf("held by %v, %v", held, err)
		}
	})
}

func TestFolderOfImagesThatLacksIsTold(t *testing.T) {
	var log bytes.Buffer
	c := configFor(t, filepath.Join(t.TempDir(), "store"))
	c.Registry, c.Log = "/no/such/folder", slog.New(slog.NewTextHandler(&log, nil))
	open(t, c)
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "/no/such/folder") {
		t.Errorf("the log says %q", got)
	}
}
