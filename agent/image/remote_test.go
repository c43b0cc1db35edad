package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/protobuf/proto"

	"starling/agent/image/imagetest"
	"starling/master/mesos"
)

// front is a proxy before a registry that a test can make misbehave.
type front struct {
	*httptest.Server
	host string
	blob atomic.Int64 // how many blobs were asked for
	all  atomic.Int64
	// break is asked first, and answers itself if it returns true.
	spoil func(w http.ResponseWriter, r *http.Request) bool
}

func before(t testing.TB, reg *imagetest.Server, spoil func(http.ResponseWriter, *http.Request) bool) *front {
	t.Helper()
	u, err := url.Parse(reg.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	f := &front{spoil: spoil}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.all.Add(1)
		if strings.Contains(r.URL.Path, "/blobs/") {
			f.blob.Add(1)
		}
		if f.spoil == nil || !f.spoil(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(f.Close)
	f.host = strings.TrimPrefix(f.URL, "http://")
	return f
}

func small(t testing.TB, layers int) imagetest.Image {
	var all [][]imagetest.File
	for i := range layers {
		all = append(all, []imagetest.File{{Name: fmt.Sprintf("f%d", i), Body: strings.Repeat(fmt.Sprintf("%d %s\n", i, t.Name()), 5000), Mode: 0o644}})
	}
	return imagetest.New(t, all...)
}

func TestManyAtOnceShareOneDownload(t *testing.T) {
	s := store(t)
	reg := imagetest.Registry(t)
	reg.Push(t, small(t, 5), "x:1")
	f := before(t, reg, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-time.After(50 * time.Millisecond)
		}
		return false
	})
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			img := docker(f.host + "/x:1")
			if i%3 == 0 {
				img = fresh(img)
			}
			p, err := s.Prepare(t.Context(), fmt.Sprintf("c%d", i), img, t.TempDir())
			if err != nil || len(p.Layers) != 5 {
				t.Errorf("container %d: %v, %v", i, p.Layers, err)
			}
		})
	}
	wg.Wait()
	// Five layers; the configuration is read at each look, of which concurrent ones share one.
	if n := f.blob.Load(); n < 6 || n > 5+11 {
		t.Errorf("%d blobs were asked for, want 6 or few more", n)
	}
	if held, _ := s.Held(t.Context()); len(held) != 30 {
		t.Errorf("%d containers hold it, want 30", len(held))
	}
}

func TestHangingRegistryEndsAtTheDeadline(t *testing.T) {
	reg := imagetest.Registry(t)
	reg.Push(t, small(t, 2), "x:1")
	for what, path := range map[string]string{"from the start": "/v2/", "at the manifest": "/manifests/", "at the blobs": "/blobs/"} {
		t.Run(what, func(t *testing.T) {
			stop := make(chan struct{})
			f := before(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, path) {
					return false
				}
				if path == "/blobs/" { // some bytes, and then nothing
					_, _ = w.Write([]byte("{"))
					w.(http.Flusher).Flush()
				}
				select {
				case <-stop:
				case <-r.Context().Done():
				}
				return true
			})
			t.Cleanup(func() { close(stop) })
			s := store(t, func(c *Config) { c.PullTimeout = time.Second })
			_, err := s.Prepare(t.Context(), "c1", docker(f.host+"/x:1"), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), "longer than 1s") || !strings.Contains(err.Error(), f.host) {
				t.Errorf("got %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err = s.Prepare(ctx, "c2", docker(f.host+"/x:1"), t.TempDir())
			if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "longer than 1s") {
				t.Errorf("with a deadline of its own: %v", err)
			}
			if n := left(t, s, filepath.Join("tmp", filepath.Base(s.tmp.Name()))); len(n) > 0 {
				t.Errorf("half layers are left: %v", n)
			}
		})
	}
}

func TestStalledBlobIsTriedAgain(t *testing.T) {
	reg := imagetest.Registry(t)
	reg.Push(t, small(t, 1), "x:1")
	var tried atomic.Int64
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	f := before(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || tried.Add(1) != 2 { // the first is the configuration
			return false
		}
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		select {
		case <-stop:
		case <-r.Context().Done():
		}
		return true
	})
	s := store(t, func(c *Config) { c.StallTimeout = 3 * time.Second }) // no server that works takes so long
	if _, err := s.Pull(t.Context(), docker(f.host+"/x:1")); err != nil {
		t.Errorf("a blob that stalled once: %v", err)
	}
}

func TestSpoiledBlobsLeaveNothing(t *testing.T) {
	reg := imagetest.Registry(t)
	img := small(t, 2)
	reg.Push(t, img, "x:1")
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[1].Digest.String()
	for what, c := range map[string]struct {
		spoil func(w http.ResponseWriter)
		want  string
	}{
		"cut": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "900")
			_, _ = w.Write([]byte("\x1f\x8bcut"))
		}, layerWord},
		"wrong": {func(w http.ResponseWriter) { _, _ = w.Write(wrongLayer(t)) }, "sha256"},
		"error": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"the blob is quarantined by the scanner"}]}`)
		}, "quarantined by the scanner"},
	} {
		t.Run(what, func(t *testing.T) {
			var broken atomic.Bool
			broken.Store(true)
			f := before(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
				if !broken.Load() || !strings.HasSuffix(r.URL.Path, layer) {
					return false
				}
				c.spoil(w)
				return true
			})
			s := store(t)
			_, err := s.Prepare(t.Context(), "c1", docker(f.host+"/x:1"), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want it to say %q", err, c.want)
			}
			if n := left(t, s, filepath.Join("tmp", filepath.Base(s.tmp.Name()))); len(n) > 0 {
				t.Errorf("half layers are left: %v", n)
			}
			if n := left(t, s, "images"); len(n) > 0 {
				t.Errorf("the image is known: %v", n)
			}
			broken.Store(false)
			if _, err := s.Prepare(t.Context(), "c1", docker(f.host+"/x:1"), t.TempDir()); err != nil {
				t.Errorf("when it is whole again: %v", err)
			}
		})
	}
}

const layerWord = "layer sha256:"

// wrongLayer is a good layer, but not the one that was asked for.
func wrongLayer(t *testing.T) []byte {
	l, err := imagetest.Layer(imagetest.File{Name: "evil", Body: "evil", Mode: 0o4755})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCredentialsGoToTheirRegistryAlone(t *testing.T) {
	reg := imagetest.Registry(t)
	reg.Push(t, small(t, 1), "x:1")
	var leaked atomic.Int64
	elsewhere := before(t, reg, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		return false
	})
	f := before(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user != "ann" || password != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	login := func(host, password string) []byte {
		return fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("ann:"+password)))
	}
	with := func(config []byte) *mesos.Image {
		i := docker(f.host + "/x:1")
		i.Docker.Config = &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Value: &mesos.Secret_Value{Data: config}}
		return fresh(i)
	}
	s := store(t)
	if _, err := s.Pull(t.Context(), docker(f.host+"/x:1")); err == nil || !strings.Contains(err.Error(), "who are you") || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("without credentials: %v", err)
	}
	if _, err := s.Pull(t.Context(), with(login(f.host, "wr0ng"))); err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with wrong credentials: %v", err)
	}
	if _, err := s.Pull(t.Context(), with(login("other.example.com", "s3cret"))); err == nil {
		t.Error("credentials of another registry were sent")
	}
	if _, err := s.Pull(t.Context(), with(login("https://"+f.host+"/v1/", "s3cret"))); err != nil {
		t.Errorf("with the task's credentials: %v", err)
	}
	byAgent := store(t, func(c *Config) { c.DockerConfig = login(f.host, "s3cret") })
	if _, err := byAgent.Pull(t.Context(), docker(f.host+"/x:1")); err != nil {
		t.Errorf("with the agent's credentials: %v", err)
	}
	if n := leaked.Load(); n > 0 {
		t.Errorf("credentials went to another host %d times", n)
	}
	bad := docker("x")
	bad.Docker.Config = &mesos.Secret{Reference: &mesos.Secret_Reference{Name: proto.String("vault")}}
	if _, err := s.Pull(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "vault") {
		t.Errorf("a config by reference: %v", err)
	}
}

func TestRegistriesThatAreNone(t *testing.T) {
	s := store(t)
	for name, want := range map[string]string{
		"169.254.169.254/latest/meta-data:x": "refused",
		"[fe80::1]/x:y":                      "refused",
	} {
		if _, err := s.Pull(t.Context(), docker(name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want it to say %q", name, err, want)
		}
	}
	// A name that leads off by a redirect, without TLS and to where nobody may go.
	reg := imagetest.Registry(t)
	reg.Push(t, small(t, 1), "x:1")
	for to, want := range map[string]string{"http://169.254.169.254/x": "denied", "http://example.com/x": "without TLS"} {
		f := before(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				http.Redirect(w, r, to, http.StatusFound)
				return true
			}
			return false
		})
		if _, err := s.Pull(t.Context(), docker(f.host+"/x:1")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("redirected to %s: %v; want it to say %q", to, err, want)
		}
	}
}

// pushIndex pushes an index of images for several platforms and returns its name, and the digest of that for p.
func pushIndex(t *testing.T, reg *imagetest.Server, p v1.Platform) (image, digest string) {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for i, platform := range []v1.Platform{{OS: "windows", Architecture: p.Architecture}, {OS: "linux", Architecture: "ppc64le"}, p, {OS: "unknown", Architecture: "unknown"}} {
		img := imagetest.New(t, []imagetest.File{{Name: "f", Body: platform.String() + t.Name(), Mode: 0o600}})
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
		if i == 2 {
			d, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			digest = d.String()
		}
	}
	ref, err := name.ParseReference(reg.Host+"/many:"+p.Architecture, name.Insecure)
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ref.String(), digest
}
