package app

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testNow = time.Date(2024, 5, 4, 10, 11, 12, 345678901, time.UTC)

// allFeatures are settings under which everything is accepted that could be.
func allFeatures() Settings {
	s := DefaultSettings()
	s.Secrets, s.ExternalVolumes, s.GPUResources = true, true, true
	return s
}

// create parses one app and makes it in an empty tree.
func create(body string, s Settings) (*App, error) {
	d, err := ParseApp([]byte(body))
	if err != nil {
		return nil, err
	}
	id, err := d.ID(Root)
	if err != nil {
		return nil, err
	}
	return d.Create(id, EmptyRoot().RulesFor(id, s))
}

func mustCreate(t *testing.T, body string) *App {
	t.Helper()
	a, err := create(body, allFeatures())
	if err != nil {
		t.Fatalf("cannot create %s: %v", body, err)
	}
	return a
}

// commit puts apps into a tree.
func mustCommit(t *testing.T, root *Group, apps ...*App) *Group {
	t.Helper()
	edited := root
	for _, a := range apps {
		edited = edited.WithApp(a)
	}
	out, err := Commit(root, edited, Change{Now: testNow, Settings: allFeatures()})
	if err != nil {
		t.Fatalf("cannot commit: %v", err)
	}
	return out
}

func mustUpdate(t *testing.T, root *Group, id PathID, body string) *App {
	t.Helper()
	d, err := ParseUpdate([]byte(body))
	if err != nil {
		t.Fatalf("cannot parse %s: %v", body, err)
	}
	a, err := d.Update(root.App(id), root.RulesFor(id, allFeatures()))
	if err != nil {
		t.Fatalf("cannot update with %s: %v", body, err)
	}
	return a
}

// checkRefused wants an *Invalid with that message and, at that path, an error that contains text.
func checkRefused(t *testing.T, err error, message, path, text string) {
	t.Helper()
	invalid, ok := errors.AsType[*Invalid](err)
	if !ok {
		t.Fatalf("got error %v, want an *Invalid at %s with %q", err, path, text)
	}
	if invalid.Message != message {
		t.Errorf("message is %q, want %q", invalid.Message, message)
	}
	for _, d := range invalid.Details {
		if d.Path != path {
			continue
		}
		for _, e := range d.Errors {
			if strings.Contains(e, text) {
				return
			}
		}
	}
	t.Errorf("no error with %q at %s in: %v", text, path, err)
}

// checkJSON wants v to be written as want, whatever the order of fields; "..." as a value of want's top level is no wish.
func checkJSON(t *testing.T, v any, want string) {
	t.Helper()
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got, wish any
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &wish); err != nil {
		t.Fatalf("bad test: %v in %s", err, want)
	}
	if diff := cmp.Diff(wish, got); diff != "" {
		t.Errorf("JSON differs (-want +got):\n%s", diff)
	}
}
