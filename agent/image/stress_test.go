package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/agent/image/imagetest"
	"starling/agent/testenv"
)

// What a container holds is there as long as it holds it, whoever collects meanwhile; two agents share the store.
func TestNothingHeldIsEverCollected(t *testing.T) {
	first := store(t)
	c := first.config
	c.Owner = t.TempDir()
	stores := []*Store{first, open(t, c)}
	reg := imagetest.Registry(t)
	base := []imagetest.File{{Name: "base", Body: strings.Repeat("b", 1000), Mode: 0o644}}
	var names []string
	for i := range 4 {
		names = append(names, reg.Push(t, imagetest.New(t, base, []imagetest.File{{Name: "own", Body: fmt.Sprint(i), Mode: 0o644}}), fmt.Sprintf("x%d:1", i)))
	}
	ctx, stop := context.WithCancel(t.Context())
	var collectors, users sync.WaitGroup
	for _, s := range stores {
		collectors.Go(func() {
			for ctx.Err() == nil {
				if err := s.Prune(ctx, nil); err != nil && ctx.Err() == nil {
					t.Errorf("prune: %v", err)
				}
			}
		})
	}
	for u := range 6 {
		users.Go(func() {
			s := stores[u%2]
			for n := range 15 {
				i := rand.IntN(len(names))
				id := fmt.Sprintf("c%d-%d", u, n)
				p, err := s.Prepare(t.Context(), id, docker(names[i]), t.TempDir())
				if err != nil {
					t.Errorf("%s: %v", id, err)
					continue
				}
				for range 3 {
					if content(t, p, "own") != fmt.Sprint(i) || len(content(t, p, "base")) != 1000 {
						t.Errorf("%s: what it holds is gone: %v", id, p.Layers)
					}
				}
				if err := s.Release(t.Context(), id); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	users.Wait()
	stop()
	collectors.Wait()
	if err := first.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"layers", "trash", "images", "quarantine"} {
		if n := left(t, first, folder); len(n) > 0 {
			t.Errorf("%s has %v in the end", folder, n)
		}
	}
}

// puller is set in the environment of a child that pulls until it is killed.
const puller = "STARLING_TEST_PULLER"

// TestPullUntilKilled is no test by itself: the next one runs it in a process of its own.
func TestPullUntilKilled(t *testing.T) {
	what := os.Getenv(puller)
	if what == "" {
		t.Skip("runs as a child of the next test")
	}
	dir, name, _ := strings.Cut(what, " ")
	c := configFor(t, dir)
	c.Owner = filepath.Join(dir, "owner")
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("pulling")
	if _, err := s.Prepare(t.Context(), "c1", docker(name), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("pulled")
	<-t.Context().Done()
}

func TestKilledPullsLeaveAStoreThatWorks(t *testing.T) {
	testenv.NeedRoot(t, "to unpack images")
	reg := imagetest.Registry(t)
	img := small(t, 6)
	reg.Push(t, img, "x:1")
	f := before(t, reg, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-time.After(20 * time.Millisecond)
		}
		return false
	})
	dir := filepath.Join(t.TempDir(), "store")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPullUntilKilled$", "-test.v")
		child.Env = append(os.Environ(), puller+"="+dir+" "+f.host+"/x:1", "TMPDIR="+t.TempDir()) // which it cannot remove itself
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		until(out, "pulling")
		<-time.After(time.Duration(rnd.IntN(150)) * time.Millisecond) // the moment of the crash
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		_ = child.Wait()
	}
	c := configFor(t, dir)
	c.Owner = filepath.Join(dir, "owner")
	s := open(t, c)
	if n := left(t, s, "tmp"); len(n) != 1 {
		t.Errorf("dead processes left %v", n)
	}
	p, err := s.Prepare(t.Context(), "c2", docker(f.host+"/x:1"), t.TempDir())
	if err != nil || len(p.Layers) != 6 {
		t.Fatalf("%v, %v", p.Layers, err)
	}
	for i := range 6 {
		if want := strings.Repeat(fmt.Sprintf("%d %s\n", i, t.Name()), 5000); content(t, p, fmt.Sprintf("f%d", i)) != want {
			t.Errorf("layer %d is not what it was", i)
		}
	}
	held, err := s.Held(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range held {
		if err := s.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if err := s.Prune(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if n := left(t, s, "layers"); len(n) > 0 {
		t.Errorf("layers are left: %v", n)
	}
}

// until reads to a line that ends in a word, or to the end.
func until(r io.Reader, word string) {
	var got []byte
	b := make([]byte, 1)
	for !strings.HasSuffix(string(got), word) {
		if _, err := r.Read(b); err != nil {
			return
		}
		got = append(got, b[0])
	}
}

// Registries that hand out tokens: the login goes to their realm, the token to the registry.
func TestTokens(t *testing.T) {
	reg := imagetest.Registry(t)
	reg.Push(t, small(t, 1), "x:1")
	var f *front
	f = before(t, reg, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			user, password, _ := r.BasicAuth()
			if user != "ann" || password != "s3cret" {
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(w, `{"details":"incorrect username or password"}`)
				return true
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"token": "t0ken"})
			return true
		}
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="here"`, f.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	for password, good := range map[string]bool{"s3cret": true, "wr0ng": false} {
		s := store(t, func(c *Config) {
			c.DockerConfig = fmt.Appendf(nil, `{%q:{"username":"ann","password":%q}}`, f.host, password) // the older form
		})
		_, err := s.Pull(t.Context(), docker(f.host+"/x:1"))
		if (err == nil) != good {
			t.Errorf("password %q: %v", password, err)
		}
		if !good && (!strings.Contains(err.Error(), "incorrect username") || strings.Contains(err.Error(), password)) {
			t.Errorf("password %q: the error does not say what the registry said, or says too much: %v", password, err)
		}
	}
}
