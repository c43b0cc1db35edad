package app

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestParseID(t *testing.T) {
	tests := []struct {
		text string
		base PathID
		want PathID // "" is refused
	}{
		{"/a/b/c", Root, "/a/b/c"},
		{"a/b", Root, "/a/b"},
		{"b/c", "/a", "/a/b/c"},
		{"./b", "/a", "/a/b"},
		{"../x", "/a/b", "/a/x"},
		{"../../../x", "/a", "/x"},
		{"//a///b/", Root, "/a/b"},
		{"/", "/a", "/"},
		{"", "/a", "/a"},
		{"/a/../b", Root, "/b"},
		{"/1.2-3.x", Root, "/1.2-3.x"},
		{"/ä", Root, ""},
		{"/a b", Root, ""},
		{"/a.", Root, ""},
		{"/.a", Root, ""},
		{"/a_b", Root, ""},
		{"/...", Root, ""},
	}
	for _, tt := range tests {
		got, err := ParseID(tt.text, tt.base)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ParseID(%q, %q) = %q, %v, want %q", tt.text, tt.base, got, err, tt.want)
		}
	}
}

func TestLongIDs(t *testing.T) {
	if id, err := ParseID(strings.Repeat("/a", 400), Root); err != nil || id.Depth() != 400 {
		t.Errorf("got %s, %v", id, err)
	}
	if _, err := ParseID(strings.Repeat("/a", 400)+"b", Root); err == nil {
		t.Error("an id of 801 characters is accepted")
	}
}

func TestCompare(t *testing.T) {
	want := []PathID{"/", "/a", "/a/b", "/a/b/c", "/a/c", "/a-b", "/a.b", "/a0", "/ab", "/ab/c", "/b"}
	got := slices.Clone(want)
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
	slices.SortFunc(got, PathID.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, id := range want {
		if id.Compare(id) != 0 {
			t.Errorf("%s is not equal to itself", id)
		}
	}
}

func TestPathIDForms(t *testing.T) {
	tests := []struct {
		id                    PathID
		parent                PathID
		base, top, safe, host string
		depth                 int
		within                PathID
		outside               PathID
	}{
		{"/shop/web", "/shop", "web", "shop", "shop_web", "web.shop", 2, "/shop", "/sho"},
		{"/web", "/", "web", "web", "web", "web", 1, "/", "/we"},
		{"/a/b/c", "/a/b", "c", "a", "a_b_c", "c.b.a", 3, "/a", "/a/b/c/d"},
	}
	for _, tt := range tests {
		if tt.id.Parent() != tt.parent || tt.id.Base() != tt.base || tt.id.Top() != tt.top || tt.id.Depth() != tt.depth {
			t.Errorf("%s: parent %s, base %s, top %s, depth %d", tt.id, tt.id.Parent(), tt.id.Base(), tt.id.Top(), tt.id.Depth())
		}
		if tt.id.Safe() != tt.safe || tt.id.HostName() != tt.host {
			t.Errorf("%s: safe %s, host name %s", tt.id, tt.id.Safe(), tt.id.HostName())
		}
		if back, err := ParseSafe(tt.safe); back != tt.id || err != nil {
			t.Errorf("ParseSafe(%s) = %s, %v", tt.safe, back, err)
		}
		if !tt.id.Within(tt.within) || tt.id.Within(tt.outside) || !tt.id.Within(tt.id) {
			t.Errorf("%s: Within(%s) = %v, Within(%s) = %v", tt.id, tt.within, tt.id.Within(tt.within), tt.outside, tt.id.Within(tt.outside))
		}
	}
	if Root.Parent() != Root || Root.Base() != "" || Root.Depth() != 0 || Root.Segments() != nil || Root.Child("a") != "/a" {
		t.Error("the root is not what it should be")
	}
	for _, bad := range []string{"", "A", "a__b", "_a"} {
		if id, err := ParseSafe(bad); err == nil {
			t.Errorf("ParseSafe(%q) = %s, want an error", bad, id)
		}
	}
}

func TestTaskIDs(t *testing.T) {
	const u = "5a0e8c51-0a01-11ef-8b3c-0242ac110002"
	tests := []struct {
		text        string
		app         PathID
		container   string
		incarnation int
		instance    string
	}{
		{"shop_web.instance-" + u + "._app.1", "/shop/web", "_app", 1, "shop_web.instance-" + u},
		{"shop_web.instance-" + u + "._app.12", "/shop/web", "_app", 12, "shop_web.instance-" + u},
		{"edge_cam.instance-" + u + ".grab.1", "/edge/cam", "grab", 1, "edge_cam.instance-" + u},
		{"edge_cam.instance-" + u + "_grab", "/edge/cam", "grab", 0, "edge_cam.instance-" + u},
		{"edge_cam.instance-" + u + ".7.3", "/edge/cam", "7", 3, "edge_cam.instance-" + u},
		{"shop_web.instance-" + u, "/shop/web", "", 0, "shop_web.instance-" + u},
		{"shop_web.marathon-" + u + "._app", "/shop/web", "_app", 0, "shop_web.marathon-" + u},
		{"shop_web.marathon-" + u + "_grab.2", "/shop/web", "grab", 2, "shop_web.marathon-" + u},
		{"shop_web." + u, "/shop/web", "", 0, "shop_web." + u},
		{"shop_web." + u + ".4", "/shop/web", "", 4, "shop_web." + u},
		{"shop_web_" + u, "/shop/web", "", 0, "shop_web_" + u},
		{"shop_web_" + u + ".4", "/shop/web", "", 4, "shop_web_" + u},
		{"v1.2_web-x." + u, "/v1.2/web-x", "", 0, "v1.2_web-x." + u},
	}
	for _, tt := range tests {
		id, err := ParseTaskID(tt.text)
		if err != nil {
			t.Errorf("ParseTaskID(%s): %v", tt.text, err)
			continue
		}
		if id.Instance.App != tt.app || id.Container != tt.container || id.Incarnation != tt.incarnation || id.Instance.String() != tt.instance {
			t.Errorf("ParseTaskID(%s): app %s, container %q, incarnation %d, instance %s",
				tt.text, id.Instance.App, id.Container, id.Incarnation, id.Instance)
		}
		if id.String() != tt.text {
			t.Errorf("ParseTaskID(%s).String() = %s", tt.text, id)
		}
	}
	for _, bad := range []string{
		"", "shop_web", "shop_web.1", "shop_web.instance-x", ".instance-" + u, "Shop." + u, "shop_web." + u + ".web.1",
		"shop_web.instance-" + u + "._app.0", "shop_web.instance-" + u + "._app.1.2", "shop__web." + u, "shop_web.instance-" + u + ".",
		"shop_web.instance-5A0E8C51-0a01-11ef-8b3c-0242ac110002",
	} {
		if id, err := ParseTaskID(bad); err == nil {
			t.Errorf("ParseTaskID(%q) = %s, want an error", bad, id)
		}
	}
}

func TestNewIDs(t *testing.T) {
	uuids := NewUUIDs(rand.New(rand.NewPCG(1, 2)))
	first, second := uuids.Next(testNow), uuids.Next(testNow)
	earlier := uuids.Next(testNow.Add(-time.Hour))
	if first == second || second == earlier || first.Version() != 1 || first.Variant() != uuid.RFC4122 {
		t.Fatalf("got %s, %s and %s", first, second, earlier)
	}
	if s, ns := first.Time().UnixTime(); time.Unix(s, ns).Sub(testNow).Abs() > time.Microsecond {
		t.Errorf("the uuid holds %v, want %v", time.Unix(s, ns), testNow)
	}
	instance := InstanceID{App: "/shop/web", UUID: first}
	task := instance.Task(3)
	if want := "shop_web.instance-" + first.String() + "._app.3"; task.String() != want {
		t.Errorf("got %s, want %s", task, want)
	}
	parsed, err := ParseTaskID(task.String())
	if err != nil || parsed != task || parsed.Instance != instance {
		t.Errorf("parsed %#v, %v, want %#v", parsed, err, task)
	}
	encoded, err := json.Marshal(map[string]any{"t": task, "i": instance})
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		T TaskID
		I InstanceID
	}
	if err := json.Unmarshal(encoded, &back); err != nil || back.T != task || back.I != instance {
		t.Errorf("got %v, %v from %s", back, err, encoded)
	}
}

func TestTimestamps(t *testing.T) {
	tests := []struct{ text, want string }{
		{"2024-05-04T10:11:12.345Z", "2024-05-04T10:11:12.345Z"},
		{"2024-05-04T12:11:12.345+02:00", "2024-05-04T10:11:12.345Z"},
		{"2024-05-04T12:11:12.345+0200", "2024-05-04T10:11:12.345Z"},
		{"2024-05-04T10:11:12Z", "2024-05-04T10:11:12.000Z"},
		{"2024-05-04T10:11Z", "2024-05-04T10:11:00.000Z"},
		{"2024-05-04T10:11:12.3456789Z", "2024-05-04T10:11:12.345Z"},
		{"2024-05-04", ""},
		{"now", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got, err := ParseTimestamp(tt.text)
		if tt.want == "" {
			if err == nil {
				t.Errorf("ParseTimestamp(%q) = %s, want an error", tt.text, got)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("ParseTimestamp(%q) = %s, %v, want %s", tt.text, got, err, tt.want)
		}
	}
	if v := NextVersion(testNow, At(testNow.Add(time.Hour))); v != At(testNow.Add(time.Hour))+1 {
		t.Errorf("a version made while the clock is behind is %s", v)
	}
}
