package app_test

import (
	"slices"
	"testing"

	"starling/marathon/app"
)

func TestUnknownFieldsAreListed(t *testing.T) {
	got, err := app.UnknownFields([]byte(`{"id":"/a","cmd":"x","color":"red","nothing":null,"none":[],"env":{"ANY":"x"},"labels":{"any":"x"},
		"container":{"type":"DOCKER","docker":{"image":"x","turbo":true}},"healthChecks":[{"protocol":"HTTP"},{"protocol":"HTTP","mood":1}]}`))
	if want := []string{"/color", "/container/docker/turbo", "/healthChecks/1/mood"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := app.UnknownPodFields([]byte(`{"id":"/p","containers":[{"name":"a","extra":1}]}`)); err != nil || !slices.Equal(got, []string{"/containers/0/extra"}) {
		t.Errorf("of a pod: %v, %v", got, err)
	}
	if _, err := app.UnknownFields([]byte(`{`)); err == nil {
		t.Error("no JSON is no error")
	}
}
