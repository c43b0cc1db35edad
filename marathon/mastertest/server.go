package mastertest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
	"starling/master/mesos/recordio"
	"starling/master/mesos/scheduler"
)

// Server is a cluster behind the v1 scheduler API.
type Server struct {
	*Cluster
	http *httptest.Server

	mu   sync.Mutex
	down bool // guarded by mu
	// refuse, if set, is asked before each call; guarded by mu.
	refuse func(*scheduler.Call) (status int, text string)
}

// NewServer starts a server, which ends with the test.
func NewServer(t testing.TB, c *Cluster) *Server {
	s := &Server{Cluster: c}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// Address is the host:port of the server.
func (s *Server) Address() string { return strings.TrimPrefix(s.http.URL, "http://") }

// Down makes the master unreachable, or reachable again: every request is answered with 503, and open sessions end.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	s.down = down
	s.mu.Unlock()
	if down {
		s.Disconnect()
	}
}

// Refuse has fn asked before each call; a status other than 0 is the answer then.
func (s *Server) Refuse(fn func(*scheduler.Call) (status int, text string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = fn
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down, refuse := s.down, s.refuse
	s.mu.Unlock()
	if down {
		http.Error(w, "No leader elected", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/api/v1" {
		s.operate(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	cd, ok := codec.ByContentType(r.Header.Get("Content-Type"))
	if !ok || r.URL.Path != "/api/v1/scheduler" {
		http.Error(w, "not the scheduler API", http.StatusNotFound)
		return
	}
	call := new(scheduler.Call)
	if err := cd.Unmarshal(body, call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if refuse != nil {
		if status, text := refuse(call); status != 0 {
			http.Error(w, text, status)
			return
		}
	}
	if call.GetType() == scheduler.Call_SUBSCRIBE {
		s.subscribe(w, r, cd, call)
		return
	}
	if r.Header.Get("Mesos-Stream-Id") != streamID(s.Sessions()) {
		http.Error(w, "The stream ID didn't match", http.StatusBadRequest)
		return
	}
	if err := s.Call(call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (s *Server) subscribe(w http.ResponseWriter, r *http.Request, cd codec.Codec, call *scheduler.Call) {
	write := func(e *scheduler.Event) bool {
		rec, err := cd.Marshal(e)
		if err != nil {
			return false
		}
		if _, err := w.Write(recordio.Append(nil, rec)); err != nil {
			return false
		}
		w.(http.Flusher).Flush()
		return true
	}
	mine, err := s.Cluster.subscribe(call)
	w.Header().Set("Mesos-Stream-Id", streamID(mine))
	w.Header().Set("Content-Type", cd.ContentType())
	if err != nil {
		write(failure(err.Error()))
		return
	}
	for s.Sessions() == mine {
		events, connected, wake := s.EventsOf(mine)
		for _, e := range events {
			if !write(e) {
				return
			}
		}
		if !connected {
			break
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-r.Context().Done():
			s.leave(mine)
			return
		}
	}
	if s.Sessions() != mine {
		write(failure("Framework failed over"))
	}
}

func streamID(session int) string { return fmt.Sprintf("stream-%d", session) }

func failure(message string) *scheduler.Event {
	return &scheduler.Event{Type: scheduler.Event_ERROR.Enum(), Error: &scheduler.Event_Error{Message: proto.String(message)}}
}
