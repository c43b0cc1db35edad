package app

import (
	"errors"
	"strings"
	"testing"
)

func TestSelectors(t *testing.T) {
	labels := Labels{"env": "prod", "tier": "front", "!!!": "x", "a b": "c,d", "in": "1", "ä": "ö"}
	tests := []struct {
		query string
		want  bool
	}{
		{"", true},
		{"  ", true},
		{"env", true},
		{"zone", false},
		{"env==prod", true},
		{"env == test", false},
		{"env!=test", true},
		{"env!=prod", false},
		{"zone!=x", false},
		{"tier in (front, api)", true},
		{"tier in(back)", false},
		{"tier in ()", false},
		{"tier notin (back)", true},
		{"tier notin (front,back)", false},
		{"tier notin ()", true},
		{"zone notin (x)", false},
		{"env==prod, tier in (front, api)", true},
		{"env==prod,tier==back", false},
		{`\!\!\!`, true},
		{`a\ b==c\,d`, true},
		{`\ä==\ö`, true},
		{"in", true},
		{"in in (1)", true},
		{"intier", false},
	}
	for _, tt := range tests {
		s, err := ParseSelector(tt.query)
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
			continue
		}
		if got := s.Matches(labels); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.query, got, tt.want)
		}
	}
	for _, bad := range []string{"env==prod, tier in (front, api), !!!", ",", "env,", "env==", "env=prod", "env in front", "env in (a", "env in (a b)", "env in (,)", `env\`, "env tier", "ä", "==x", "\\\xff"} {
		_, err := ParseSelector(bad)
		invalid, ok := errors.AsType[*Invalid](err)
		if !ok || !strings.HasPrefix(invalid.Message, "Can not parse label selector") || invalid.Details != nil {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add(`env==prod, tier in (front, api), \!x notin ()`)
	f.Fuzz(func(t *testing.T, query string) {
		if s, err := ParseSelector(query); err == nil {
			s.Matches(Labels{"env": "prod"})
		}
	})
}
