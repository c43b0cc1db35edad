package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// maxMarathonRefusal is how much of a refusal is read: a group may have a lot wrong with it.
const maxMarathonRefusal = 256 << 10

// marathonRefusal is an answer that is no success, or what would be one.
type marathonRefusal struct {
	host    string // empty where nobody was asked
	status  int
	message string
	// details are lines on what is wrong where; deployments those that lock what was to be changed.
	details, deployments []string
}

func newMarathonRefusal(host string, status int, body []byte) *marathonRefusal {
	r := &marathonRefusal{host: host, status: status}
	var answer struct {
		Message     string
		Details     json.RawMessage
		Deployments []struct{ ID string }
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Message == "" {
		r.message = strings.TrimSpace(string(body[:min(len(body), maxRefusal)]))
		if r.message == "" {
			r.message = http.StatusText(status)
		}
		return r
	}
	r.message = answer.Message
	for _, d := range answer.Deployments {
		r.deployments = append(r.deployments, d.ID)
	}
	var syntax string
	var details []struct {
		Path   string
		Errors []string
	}
	if json.Unmarshal(answer.Details, &syntax) == nil && syntax != "" {
		r.details = []string{syntax}
	} else if json.Unmarshal(answer.Details, &details) == nil {
		for _, d := range details {
			r.detail(d.Path, d.Errors)
		}
	}
	return r
}

// codeTexts say what the codes mean that stand for wrong types and limits.
var codeTexts = map[string]string{
	"error.path.missing": "is missing", "error.expected.jsstring": "is not a text", "error.expected.jsnumber": "is not a number",
	"error.expected.jsnumberformatexception": "is no number of the kind and size that is wanted", "error.expected.jsboolean": "is neither true nor false",
	"error.expected.jsarray": "is not a list", "error.expected.jsobject": "is not an object",
	"error.expected.date.isoformat": "is not a date and time", "error.unknown.enum.literal": "is none of the values that there are",
	"error.min": "is too small", "error.max": "is too large", "error.minLength": "is too short", "error.maxLength": "is too long",
	"error.pattern": "is not of the form that is wanted", "error.minItems": "has too few items",
}

// detail adds what is wrong at a path.
func (r *marathonRefusal) detail(path string, texts []string) {
	for _, text := range texts {
		if words := codeTexts[text]; words != "" {
			text = words + " (" + text + ")"
		}
		r.details = append(r.details, path+": "+text)
	}
}

// Error says what was refused and why, with a line for each detail.
func (r *marathonRefusal) Error() string {
	if r.status == http.StatusConflict && len(r.deployments) > 0 {
		first := r.deployments[0]
		return fmt.Sprintf("locked: deployment %s is at work on it. Wait for it (starling deployment watch %s), undo it (starling deployment "+
			"cancel %s), or cancel it by doing this with --force", strings.Join(r.deployments, ", "), first, first)
	}
	lines := append([]string{r.message}, r.details...)
	if r.host != "" {
		lines[0] = fmt.Sprintf("%s answers %d: %s", r.host, r.status, r.message)
	}
	if r.status == http.StatusUnauthorized {
		lines[0] += "; credentials are taken from the URL of --marathon, or from STARLING_MARATHON_AUTH"
	}
	return strings.Join(lines, "\n  ")
}

// isMarathonStatus tells of a refusal with a status.
func isMarathonStatus(err error, status int) bool {
	r, ok := errors.AsType[*marathonRefusal](err)
	return ok && r.status == status
}
