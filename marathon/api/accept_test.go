package api

import "testing"

func TestPlainTasksAreForThoseWhoAskForThem(t *testing.T) {
	for _, tc := range []struct {
		accept        string
		plain, either bool
	}{
		{"", false, true},
		{"*/*", false, true},
		{"*", false, true},
		{"text/plain", true, true},
		{"Text/Plain; charset=utf-8", true, true},
		{"text/*", true, true},
		{"application/json", false, true},
		{"application/*, text/plain", false, true},
		{"text/plain, */*", false, true},
		{"text/html, text/plain, */*;q=0.2", false, true},
		{"text/plain, */*;q=0.05", true, true},
		{"text/plain, application/json;q=0.5", false, true},
		{"text/plain, application/json;q=0.05", true, true},
		{"application/json;q=0, text/plain", true, true},
		{"application/json;q=0, */*", true, true},
		{"text/plain;q=0, */*", false, true},
		{"image/png", false, false},
		{"text/plain;q=0", false, false},
		{"text/plain;q=nan", false, false},
		{"text/plain;q=2", false, false},
		{",;,", false, false},
	} {
		if plain, either := wantsPlain(tc.accept); plain != tc.plain || either != tc.either {
			t.Errorf("%q: plain %v, either %v, want %v and %v", tc.accept, plain, either, tc.plain, tc.either)
		}
	}
}
