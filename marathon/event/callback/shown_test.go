package callback

import (
	"errors"
	"net/url"
	"testing"
)

func TestSecretsOfAURLAreNotLogged(t *testing.T) {
	for text, want := range map[string]string{
		"https://user:pw@host:81/a?token=t#f": "https://host:81/a",
		"http://host/":                        "http://host/",
		"://":                                 "a URL that does not parse",
	} {
		if got := shown(text); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
	cause := errors.New("refused")
	if got := causeOf(&url.Error{Op: "Post", URL: "https://user:pw@host", Err: cause}); got != cause {
		t.Errorf("got %v", got)
	}
}
