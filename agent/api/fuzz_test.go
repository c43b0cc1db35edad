package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/recordio"
)

// statuses are those that an answer to a call may have.
var statuses = map[int]bool{200: true, 202: true, 400: true, 404: true, 405: true, 406: true, 409: true, 413: true, 415: true, 500: true, 501: true, 503: true}

// Whatever bytes come in, as a call or as a stream of input: they are answered with a status of the protocol, nothing panics, and
// the agent goes on showing a state that can be read.
func FuzzOperatorCall(f *testing.F) {
	const id = `"container_id":{"value":"c"}`
	for _, text := range []string{
		`{"type":"GET_STATE"}`, `{"type":"GET_CONTAINERS","get_containers":{"show_nested":true,"show_standalone":true}}`,
		`{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":1}}}`, `{"type":"LIST_FILES","list_files":{"path":"/containers/c"}}`,
		`{"type":"READ_FILE","read_file":{"path":"/containers/c/stdout","offset":0,"length":10}}`,
		`{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":1000}}}`,
		`{"type":"LAUNCH_CONTAINER","launch_container":{` + id + `,"command":{"value":"true"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}],"limits":{"mem":{"value":1}}}}`,
		`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"n","parent":{"value":"c"}},"command":{"value":"true"},"container":{"type":"MESOS","tty_info":{}}}}`,
		`{"type":"LAUNCH_NESTED_CONTAINER_SESSION","launch_nested_container_session":{"container_id":{"value":"s","parent":{"value":"c"}},"command":{"value":"true"}}}`,
		`{"type":"KILL_CONTAINER","kill_container":{` + id + `,"signal":9}}`, `{"type":"REMOVE_CONTAINER","remove_container":{` + id + `}}`,
		`{"type":"KILL_NESTED_CONTAINER","kill_nested_container":{` + id + `}}`, `{"type":"REMOVE_NESTED_CONTAINER","remove_nested_container":{` + id + `}}`,
		`{"type":"PRUNE_IMAGES","prune_images":{}}`, `{"type":"GET_AGENT"}`,
		`{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID",` + id + `}}`,
		`{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"PROCESS_IO","process_io":{"type":"DATA","data":{"type":"STDIN","data":"eA=="}}}}`,
	} {
		call := &operator.Call{}
		if err := codec.JSON.Unmarshal([]byte(text), call); err != nil {
			f.Fatal(err)
		}
		binary, err := codec.Protobuf.Marshal(call)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text), true, false)
		f.Add(binary, false, false)
		f.Add(recordio.Append(nil, []byte(text)), true, true)
		f.Add(recordio.Append(recordio.Append(nil, binary), binary), false, true)
	}
	site := newSite(f, nil)
	log := &panics{}
	site.log = slog.New(log)
	site.fake.Behave = func(spec containerizer.Spec) containerizertest.Behaviour {
		return containerizertest.Behaviour{Ends: spec.ID != "c"}
	}
	s := site.serve()
	f.Fuzz(func(t *testing.T, body []byte, isJSON, stream bool) {
		// An answer may be endless: one that awaits a container, or shows what it writes.
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/api/v1", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		kind := codec.TypeProtobuf
		if isJSON {
			kind = codec.TypeJSON
		}
		req.Header.Set("Content-Type", kind)
		if stream {
			req.Header.Set("Content-Type", codec.TypeRecordIO)
			req.Header.Set("Message-Content-Type", kind)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if !statuses[resp.StatusCode] {
				t.Errorf("answered with %d", resp.StatusCode)
			}
		}
		resp, err := http.Get(s.base + "/state")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if state, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !json.Valid(state) {
			t.Errorf("the state is %d %s, %v", resp.StatusCode, state, err)
		}
		if n := log.count.Load(); n > 0 {
			t.Fatalf("%d handlers have panicked", n)
		}
	})
}

// panics counts what a log tells of handlers that have panicked.
type panics struct {
	slog.Handler
	count atomic.Int32
}

// Enabled implements slog.Handler.
func (p *panics) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler.
func (p *panics) WithAttrs([]slog.Attr) slog.Handler { return p }

// Handle implements slog.Handler.
func (p *panics) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "panicked") {
		p.count.Add(1)
	}
	return nil
}
