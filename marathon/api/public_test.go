package api_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"starling/marathon/api"
)

// Programs that read the description find what is served, and nothing else.
func TestDescriptionIsTrue(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.Logging = new(levels) })
	r.want(201, "POST", "/v2/apps", `{"id":"/a/b","cmd":"x","cpus":0.1,"instances":0}`)
	r.settled()
	paths := r.want(200, "GET", "/public/api/v2/openapi.json", "").json(t)["paths"].(map[string]any)
	page := r.want(200, "GET", "/api-console/index.html", "").body
	if len(paths) < 20 {
		t.Errorf("%d paths are described", len(paths))
	}
	for path, item := range paths {
		want := slices.Sorted(maps.Keys(item.(map[string]any)))
		for method, operation := range item.(map[string]any) {
			unnamed := path
			parameters, _ := operation.(map[string]any)["parameters"].([]any)
			for _, p := range parameters {
				unnamed = strings.Replace(unnamed, "{"+p.(map[string]any)["name"].(string)+"}", "", 1)
			}
			if strings.Contains(unnamed, "{") {
				t.Errorf("%s %s: its parameters are %v", method, path, parameters)
			}
		}
		// What programs are told, people are told as well, but for views that stand beside another one.
		shown, view, _ := strings.Cut(path, "::")
		if view == "restart" || view == "instances" {
			shown = path
		}
		if !strings.Contains(page, " "+strings.Replace(shown, "{deployment}", "{id}", 1)+"<") {
			t.Errorf("%s is not on the page for people", shown)
		}
		path = strings.NewReplacer("{id}", "a/b", "{deployment}", "x", "{kind}", "app").Replace(path)
		var got []string
		for one := range strings.SplitSeq(r.want(200, "OPTIONS", path, "").header.Get("Allow"), ", ") {
			if one != "OPTIONS" && one != "HEAD" {
				got = append(got, strings.ToLower(one))
			}
		}
		slices.Sort(got)
		// An app may be called "restart", too.
		if asApp := strings.HasSuffix(path, "/restart"); !asApp && !slices.Equal(got, want) || asApp && !slices.Contains(got, want[0]) {
			t.Errorf("%s is described with %v, and takes %v", path, want, got)
		}
	}
	r.want(404, "GET", "/public/api/none", "")
	r.want(404, "GET", "/public", "")
}
