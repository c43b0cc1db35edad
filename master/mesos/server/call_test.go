package server_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
	"starling/master/mesos/server"
)

// The texts are those of mesos-api.md, section 2.
func TestNegotiation(t *testing.T) {
	app := server.NewApp(server.Options{})
	app.All("/call", func(c *fiber.Ctx) error {
		call := &scheduler.Call{}
		if _, err := server.ReadCall(c, call); err != nil {
			return err
		}
		cd, err := server.AcceptCodec(c)
		if err != nil {
			return err
		}
		return server.WriteMessage(c, cd, &scheduler.Event{
			Type:  scheduler.Event_ERROR.Enum(),
			Error: &scheduler.Event_Error{Message: proto.String(call.GetType().String())},
		})
	})
	app.Post("/accepted", func(c *fiber.Ctx) error { return server.Accepted(c) })
	addr, _ := start(t, app)

	kill, err := codec.Protobuf.Marshal(&scheduler.Call{
		Type: scheduler.Call_KILL.Enum(),
		Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String("t")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	killed := `{"type":"ERROR","error":{"message":"KILL"}}`
	for _, tc := range []struct {
		name, method, contentType, accept, body string

		status int
		want   string
	}{
		{name: "JSON", contentType: "application/json", body: `{"type":"KILL"}`, status: 200, want: killed},
		{
			name: "parameters and letter case", contentType: "Application/JSON; charset=utf-8", body: `{"type":"KILL"}`,
			status: 200, want: killed,
		},
		{name: "protobuf, answered in JSON", contentType: "application/x-protobuf", body: string(kill), status: 200, want: killed},
		{
			name: "an answer of any type is JSON", contentType: "application/x-protobuf",
			accept: "application/x-protobuf, */*", body: string(kill), status: 200, want: killed,
		},
		{
			name: "another method", method: "GET", status: 405,
			want: "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.",
		},
		{name: "no content type", body: "{}", status: 400, want: "Expecting 'Content-Type' to be present"},
		{
			name: "a foreign content type", contentType: "text/plain", body: "{}", status: 415,
			want: "Expecting 'Content-Type' of application/json or application/x-protobuf",
		},
		{
			name: "no JSON", contentType: "application/json", body: "{", status: 400,
			want: "Failed to parse body into JSON: unexpected end, expected a member name at byte 1",
		},
		{
			name: "no body", contentType: "application/json", status: 400,
			want: "Failed to parse body into JSON: unexpected end, expected a value",
		},
		{
			name: "JSON of another shape", contentType: "application/json", body: `{"type":1}`, status: 400,
			want: "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field 'type'",
		},
		{
			name: "a required field is missing", contentType: "application/json", body: `{"kill":{}}`, status: 400,
			want: "Failed to convert JSON into Call protobuf: Missing required fields: kill.task_id",
		},
		{
			name: "no protobuf", contentType: "application/x-protobuf", body: "{}", status: 400,
			want: "Failed to parse body into Call protobuf",
		},
		{
			name: "an answer of no type that we have", contentType: "application/json", accept: "text/html", body: "{}",
			status: 406, want: "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
		},
	} {
		h := http.Header{}
		if tc.contentType != "" {
			h.Set("Content-Type", tc.contentType)
		}
		if tc.accept != "" {
			h.Set("Accept", tc.accept)
		}
		method := tc.method
		if method == "" {
			method = "POST"
		}
		resp, body := do(t, method, "http://"+addr+"/call", h, strings.NewReader(tc.body))
		if resp.StatusCode != tc.status || body != tc.want {
			t.Errorf("%s: %d %q, want %d %q", tc.name, resp.StatusCode, body, tc.status, tc.want)
		}
		if ct := resp.Header.Get("Content-Type"); resp.StatusCode == 200 && ct != "application/json" {
			t.Errorf("%s: Content-Type %q", tc.name, ct)
		}
		if allow := resp.Header.Get("Allow"); tc.status == 405 && allow != "POST" {
			t.Errorf("%s: Allow %q", tc.name, allow)
		}
	}

	resp, body := do(t, "POST", "http://"+addr+"/call", http.Header{
		"Content-Type": {"application/x-protobuf"}, "Accept": {"application/x-protobuf"}, "Content-Encoding": {"gzip"},
	}, bytes.NewReader(pack(string(kill))))
	event := &scheduler.Event{}
	if err := codec.Protobuf.Unmarshal([]byte(body), event); err != nil || event.GetError().GetMessage() != "KILL" ||
		resp.Header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("protobuf both ways, packed: %v, %v, %v", event, err, resp.Header)
	}

	resp, body = do(t, "POST", "http://"+addr+"/accepted", nil, nil)
	if resp.StatusCode != 202 || body != "" || resp.Header.Get("Content-Length") != "0" {
		t.Errorf("accepted: %d %q %v", resp.StatusCode, body, resp.Header)
	}
}

func TestJSONP(t *testing.T) {
	app := server.NewApp(server.Options{})
	app.Get("/state", func(c *fiber.Ctx) error { return server.WriteJSON(c, []byte(`{"a":1}`)) })
	addr, _ := start(t, app)
	for _, tc := range []struct {
		query, contentType, want string

		status int
	}{
		{"", "application/json", `{"a":1}`, 200},
		{"?jsonp=angular.callbacks._1", "text/javascript", `angular.callbacks._1({"a":1})`, 200},
		{"?jsonp=alert(1)//", "text/plain; charset=utf-8", "Expecting 'jsonp' to be the name of a function", 400},
	} {
		resp, body := do(t, "GET", "http://"+addr+"/state"+tc.query, nil, nil)
		if resp.StatusCode != tc.status || body != tc.want || resp.Header.Get("Content-Type") != tc.contentType {
			t.Errorf("%q: %d %q %q", tc.query, resp.StatusCode, body, resp.Header.Get("Content-Type"))
		}
	}
}

// Fiber's strings live as long as the request; a decoded call must not.
func TestCallOutlivesRequest(t *testing.T) {
	calls := make(chan *scheduler.Call, 100)
	app := server.NewApp(server.Options{})
	app.Post("/call", func(c *fiber.Ctx) error {
		call := &scheduler.Call{}
		_, err := server.ReadCall(c, call)
		calls <- call
		return err
	})
	addr, _ := start(t, app)
	cl := client(t)
	for _, cd := range []codec.Codec{codec.JSON, codec.Protobuf} {
		for i := range 20 {
			id := strings.Repeat(string(rune('a'+i)), 40)
			body, err := cd.Marshal(&scheduler.Call{FrameworkId: &mesos.FrameworkID{Value: &id}})
			if err != nil {
				t.Fatal(err)
			}
			resp, err := cl.Post("http://"+addr+"/call", cd.ContentType(), bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		for i := range 20 {
			want := strings.Repeat(string(rune('a'+i)), 40)
			if got := (<-calls).GetFrameworkId().GetValue(); got != want {
				t.Fatalf("%s: call %d has become %q, want %q", cd.ContentType(), i, got, want)
			}
		}
	}
}
