package api_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"starling/master/api"
)

// The log is shown where there is one, and nothing else is.
func TestFiles(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	text := "first line\n" + strings.Repeat("x", 70_000) + "\xff"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startWith(t, nil, api.Config{LogFile: log})
	s.lead()
	quoted := func(part string) string { return base64.StdEncoding.EncodeToString([]byte(part)) }
	const gone = "404 Not Found."
	for _, test := range []struct {
		line   string
		status int
		want   string
	}{
		{"GET /files/read?path=/master/log&offset=0&length=5", 200, `{"data":"first","offset":0}`},
		{"GET /master/files/read.json?path=/master/log&offset=6&length=4&jsonp=f", 200, `f({"data":"line","offset":6})`},
		{"GET /files/read?path=/master/log", 200, fmt.Sprintf(`{"data":"","offset":%d}`, len(text))},
		{"GET /files/read?path=/master/log&offset=-1&length=5", 200, fmt.Sprintf(`{"data":"","offset":%d}`, len(text))},
		{"GET /files/read?path=/master/log&offset=99999", 200, `{"data":"","offset":99999}`},
		{fmt.Sprintf("GET /files/read?path=/master/log&offset=%d", len(text)-1), 200, `{"data":"` + "\uFFFD"},
		{"GET /files/read?path=/master/log&offset=-2", 400, "Negative offset provided: -2."},
		{"GET /files/read?path=/master/log&offset=x", 400, "Failed to parse offset: 'x' is not a number."},
		{"GET /files/read?offset=0", 400, "Expecting 'path=value' in query."},
		{"GET /files/read?path=/etc/passwd&offset=0", 404, gone},
		{"GET /files/read?path=/master/log/../../etc/passwd&offset=0", 404, gone},
		{"GET /files/browse?path=/master/log", 200, "[]"},
		{"GET /files/browse?path=/", 404, gone},
		{"GET /files/browse", 400, "Expecting 'path=value' in query."},
		{"GET /files/download?path=/master/log", 200, "first line\nxxx"},
		{"GET /files/download?path=/x", 404, gone},
		{"GET /files/debug", 200, `{"/master/log":"` + log + `"}`},
		{`POST /api/v1 {"type":"LIST_FILES","list_files":{"path":"/master/log"}}`, 200, `{"type":"LIST_FILES","list_files":{"file_infos":[]}}`},
		{`POST /api/v1 {"type":"LIST_FILES","list_files":{"path":"/x"}}`, 404, gone},
		{
			`POST /api/v1 {"type":"READ_FILE","read_file":{"path":"/master/log","offset":0,"length":5}}`, 200,
			fmt.Sprintf(`{"type":"READ_FILE","read_file":{"size":%d,"data":"%s"}}`, len(text), quoted("first")),
		},
		{
			`POST /api/v1 {"type":"READ_FILE","read_file":{"path":"/master/log","offset":18446744073709551615}}`, 200,
			fmt.Sprintf(`{"type":"READ_FILE","read_file":{"size":%d,"data":""}}`, len(text)),
		},
		{
			`POST /api/v1 {"type":"READ_FILE","read_file":{"path":"/master/log","offset":0}}`, 200,
			fmt.Sprintf(`"data":"%s"}}`, quoted(text[:65536])),
		},
		{`POST /api/v1 {"type":"READ_FILE","read_file":{"path":"/x","offset":0}}`, 404, gone},
		{`POST /api/v1 {"type":"READ_FILE","read_file":{"path":"/x"}}`, 400, "Missing required fields"},
	} {
		line, body := cutBody(test.line)
		resp, got := s.do(line, body, jsonType)
		if resp.StatusCode != test.status || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %d %.200s, want %d %.200s", test.line, resp.StatusCode, got, test.status, test.want)
		}
	}
	resp, got := s.do("GET /files/download?path=/master/log", "")
	if got != text || resp.Header.Get("Content-Disposition") != "attachment; filename=log" {
		t.Errorf("download: %d bytes, %q", len(got), resp.Header.Get("Content-Disposition"))
	}
	none := start(t, nil)
	none.lead()
	if resp, text := none.do("GET /files/read?path=/master/log&offset=0", ""); resp.StatusCode != 404 || text != gone {
		t.Errorf("without a log: got %d %q", resp.StatusCode, text)
	}
}

// The level of the log is raised for a while.
func TestLoggingLevel(t *testing.T) {
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	s := startWith(t, nil, api.Config{Level: level})
	s.lead()
	get := func() string {
		_, text := s.do("POST /api/v1", `{"type":"GET_LOGGING_LEVEL"}`, jsonType)
		return strings.TrimSuffix(strings.TrimPrefix(text, `{"type":"GET_LOGGING_LEVEL","get_logging_level":{"level":`), "}}")
	}
	if got := get(); got != "0" {
		t.Errorf("at first: got %s", got)
	}
	const hour = `{"nanoseconds":3600000000000}`
	if resp, text := s.do("POST /api/v1", `{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":2,"duration":`+hour+`}}`, jsonType); resp.StatusCode != 200 || text != "" {
		t.Errorf("raise: got %d %q", resp.StatusCode, text)
	}
	if got := get(); got != "2" || level.Level() != slog.LevelDebug {
		t.Errorf("raised: got %s, %s", got, level.Level())
	}
	if _, text := s.do("GET /logging/toggle", ""); text != "2\n" {
		t.Errorf("toggle: got %q", text)
	}
	for line, want := range map[string]string{
		"GET /logging/toggle?level=1":                     "Expecting 'duration=value' in query.",
		"GET /logging/toggle?duration=1secs":              "Expecting 'level=value' in query.",
		"GET /logging/toggle?level=x&duration=1secs":      "Invalid level 'x'.",
		"GET /logging/toggle?level=4&duration=1secs":      "Invalid level '4'.",
		"GET /logging/toggle?level=1&duration=1":          "Invalid duration '1'",
		"GET /metrics/snapshot?timeout=5":                 "Invalid timeout '5'",
		"GET /metrics/snapshot?timeout=-1secs":            "Invalid timeout '-1secs'",
		"GET /metrics/snapshot?timeout=99999999999999hrs": "out of range",
	} {
		if resp, text := s.do(line, ""); resp.StatusCode != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: got %d %q, want %q", line, resp.StatusCode, text, want)
		}
	}
	s.do("GET /logging/toggle?level=1&duration=10ms", "")
	s.eventually("the level is back", func() bool { return level.Level() == slog.LevelWarn && get() == "0" })
	fixed := start(t, nil)
	fixed.lead()
	if resp, _ := fixed.do("GET /logging/toggle?level=1&duration=1secs", ""); resp.StatusCode != 501 {
		t.Errorf("fixed: got %d", resp.StatusCode)
	}
}
