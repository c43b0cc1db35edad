package docker

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeEngine answers what a containerizer asks while it launches containers, and keeps the requests.
type fakeEngine struct {
	socket string

	mu       sync.Mutex
	requests []string // method and path
	created  map[string]map[string]any
	auth     string
	have     map[string]bool
}

var version = regexp.MustCompile(`^/v1\.41`)

func newFakeEngine(t *testing.T) *fakeEngine {
	dir, err := os.MkdirTemp("", "fake")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeEngine{socket: filepath.Join(dir, "s"), created: map[string]map[string]any{}, have: map[string]bool{}}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
		os.RemoveAll(dir)
	})
	return f
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := version.ReplaceAllString(r.URL.Path, "")
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+path)
	f.mu.Unlock()
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	part := strings.Split(path, "/")
	switch {
	case path == "/_ping":
	case path == "/containers/json":
		fmt.Fprint(w, "[]")
	case path == "/containers/create":
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		name := r.URL.Query().Get("name")
		f.mu.Lock()
		f.created[name] = body
		f.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":"id-of-%s"}`, name)
	case path == "/images/create":
		f.mu.Lock()
		f.have[r.URL.Query().Get("fromImage")+":"+r.URL.Query().Get("tag")] = true
		f.auth = r.Header.Get("X-Registry-Auth")
		f.mu.Unlock()
		fmt.Fprint(w, `{"status":"Pulling"}`)
	case strings.HasPrefix(path, "/images/"):
		f.mu.Lock()
		have := f.have[strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json")]
		f.mu.Unlock()
		if !have {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"no such image"}`)
			return
		}
		fmt.Fprint(w, `{"Id":"sha256:1"}`)
	case path == "/volumes/root":
		fmt.Fprint(w, `{"Name":"root","Driver":"local","Options":{"type":"none","o":"ro,rbind","device":"/"}}`)
	case path == "/volumes/plain":
		fmt.Fprint(w, `{"Name":"plain","Driver":"local"}`)
	case strings.HasPrefix(path, "/volumes/"):
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"no such volume"}`)
	case strings.HasSuffix(path, "/start"):
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(path, "/containers/") && part[len(part)-1] == "json":
		fmt.Fprintf(w, `{"Id":%q,"Name":"/x","State":{"Status":"running","Running":true,"StartedAt":%q},"Config":{},"HostConfig":{},"NetworkSettings":{}}`,
			part[2], time.Now().UTC().Format(time.RFC3339Nano))
	case path == "/events", strings.HasSuffix(path, "/logs"):
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	default:
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, `{"message":"not what a launch needs"}`)
	}
}
