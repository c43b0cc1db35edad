// Package imagetest makes small images for tests, without a network: from the static busybox of the machine, as an archive of
// `docker save`, as an OCI layout, and in a registry that lives in the test.
package imagetest

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"starling/agent/testenv"
)

// busybox is where Debian's package busybox-static has it.
const busybox = "/bin/busybox"

// Hello is what the images serve: `httpd -f -p 8080 -h /www` is their command.
const Hello = "hello from the image\n"

// File is one entry of a layer. Without a Type it is a file with a Body.
type File struct {
	Name, Body, Link string
	Mode             int64
	UID, GID         int
	Type             byte
}

// Image is one that a test has made.
type Image struct{ v1.Image }

// Option changes what Busybox makes.
type Option func(*plan)

type plan struct {
	config v1.Config
	layers [][]File
}

// WithEnv adds to the environment.
func WithEnv(env ...string) Option {
	return func(p *plan) { p.config.Env = append(p.config.Env, env...) }
}

// WithCmd sets the command.
func WithCmd(args ...string) Option { return func(p *plan) { p.config.Cmd = args } }

// WithEntrypoint sets the entry point.
func WithEntrypoint(args ...string) Option { return func(p *plan) { p.config.Entrypoint = args } }

// WithUser sets the user.
func WithUser(user string) Option { return func(p *plan) { p.config.User = user } }

// WithWorkDir sets the working directory.
func WithWorkDir(dir string) Option { return func(p *plan) { p.config.WorkingDir = dir } }

// WithStopSignal sets the signal that ends it.
func WithStopSignal(signal string) Option { return func(p *plan) { p.config.StopSignal = signal } }

// WithLayer adds a layer on top.
func WithLayer(files ...File) Option {
	return func(p *plan) { p.layers = append(p.layers, files) }
}

// WithLayers adds so many layers, each with one file, /layers/<number>.
func WithLayers(n int) Option {
	return func(p *plan) {
		for i := range n {
			p.layers = append(p.layers, []File{{Name: fmt.Sprintf("layers/%d", i), Body: fmt.Sprintf("%d\n", i), Mode: 0o644}})
		}
	}
}

// Busybox returns an image with all of busybox in /bin, users root, daemon and nobody, and a page for its httpd. Where there is
// no static busybox the test is skipped, or fails with CI=true.
func Busybox(t testing.TB, opts ...Option) Image {
	t.Helper()
	base := busyboxLayer(t)
	p := plan{config: v1.Config{
		Env: []string{"PATH=/bin"}, Cmd: []string{"httpd", "-f", "-p", "8080", "-h", "/www"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	}}
	for _, o := range opts {
		o(&p)
	}
	return build(t, p.config, append([][]File{base}, p.layers...))
}

// New returns an image of the given layers, the lowest first, and nothing else.
func New(t testing.TB, layers ...[]File) Image {
	t.Helper()
	return build(t, v1.Config{}, layers)
}

func build(t testing.TB, config v1.Config, layers [][]File) Image {
	t.Helper()
	image := empty.Image
	for _, files := range layers {
		layer, err := Layer(files...)
		if err == nil {
			image, err = mutate.AppendLayers(image, layer)
		}
		if err != nil {
			t.Fatalf("cannot make image: %v", err)
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatalf("cannot make image: %v", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatalf("cannot make image: %v", err)
	}
	return Image{image}
}

// Layer returns a layer of files. Folders are made as they are needed.
func Layer(files ...File) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Linkname: f.Link, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Typeflag: f.Type, Size: int64(len(f.Body))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.Body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

func busyboxLayer(t testing.TB) []File {
	t.Helper()
	b, err := os.ReadFile(busybox)
	if err == nil {
		err = static(b)
	}
	var applets []byte
	if err == nil {
		applets, err = exec.CommandContext(t.Context(), busybox, "--list").Output()
	}
	if err != nil {
		testenv.Lacks(t, "a static busybox is needed: %v", err)
	}
	files := []File{
		{Name: "bin/", Type: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Body: string(b), Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Body: "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{Name: "etc/group", Mode: 0o644, Body: "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"},
		{Name: "root/", Type: tar.TypeDir, Mode: 0o700},
		{Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777},
		{Name: "www/index.html", Body: Hello, Mode: 0o644},
	}
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			files = append(files, File{Name: "bin/" + name, Link: "busybox", Type: tar.TypeSymlink, Mode: 0o777})
		}
	}
	return files
}

// static returns an error for a program that needs libraries.
func static(program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not static", busybox)
		}
	}
	return nil
}

// Archive writes the image as `docker save` does, under a name such as "busybox:1".
func (i Image) Archive(t testing.TB, path, tag string) {
	t.Helper()
	ref, err := name.NewTag(tag)
	if err == nil {
		err = tarball.WriteToFile(path, ref, i.Image)
	}
	if err != nil {
		t.Fatalf("cannot write archive: %v", err)
	}
}

// Layout writes the image into a folder as an OCI layout, which is made or added to, with a tag if that is not empty.
func (i Image) Layout(t testing.TB, dir, tag string) {
	t.Helper()
	path, err := layout.FromPath(dir)
	if err != nil {
		path, err = layout.Write(dir, empty.Index)
	}
	var opts []layout.Option
	if tag != "" {
		opts = append(opts, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag}))
	}
	if err == nil {
		err = path.AppendImage(i.Image, opts...)
	}
	if err != nil {
		t.Fatalf("cannot write layout: %v", err)
	}
}

// Server is a registry in memory.
type Server struct {
	*httptest.Server
	// Host is where it listens, "127.0.0.1:PORT".
	Host string
}

// Registry starts a registry that ends with the test.
func Registry(t testing.TB) *Server {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return &Server{s, strings.TrimPrefix(s.URL, "http://")}
}

// Push puts an image under a name such as "busybox:1" and returns the whole name.
func (s *Server) Push(t testing.TB, i Image, tag string) string {
	t.Helper()
	ref, err := name.ParseReference(s.Host+"/"+tag, name.Insecure)
	if err == nil {
		err = remote.Write(ref, i.Image, remote.WithContext(t.Context()))
	}
	if err != nil {
		t.Fatalf("cannot push image: %v", err)
	}
	return ref.String()
}
