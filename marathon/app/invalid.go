package app

import (
	"fmt"
	"strconv"
	"strings"
)

// The texts that head a refusal. Clients match on them.
const (
	// MessageJSON heads a body that is not JSON, or whose fields have the wrong types.
	MessageJSON = "Invalid JSON"
	// MessageObject heads a definition that breaks a rule.
	MessageObject = "Object is not valid"
)

// Detail lists what is wrong at one path of a definition.
type Detail struct {
	// Path names the place: "/healthChecks(0)/portIndex", "/" for the whole.
	Path string `json:"path"`
	// Errors are texts for people or, for wrong JSON types, codes such as error.expected.jsnumber.
	Errors []string `json:"errors"`
}

// Invalid refuses a definition. Over HTTP it is a 422 with Message and Details, or a 400 with Message and Syntax as
// the (textual) details when Syntax is set.
type Invalid struct {
	Message string
	Details []Detail
	// Syntax says why the body is not JSON at all.
	Syntax string
}

// Error lists the message and every detail.
func (i *Invalid) Error() string {
	var b strings.Builder
	b.WriteString(i.Message)
	if i.Syntax != "" {
		b.WriteString(": ")
		b.WriteString(i.Syntax)
	}
	for _, d := range i.Details {
		fmt.Fprintf(&b, "; %s: %s", d.Path, strings.Join(d.Errors, ", "))
	}
	return b.String()
}

// Join adds to a refusal, which may be nil, another one: that of the i-th element of a list. Its paths begin with the index.
func (i *Invalid) Join(of *Invalid, n int) *Invalid {
	out := &Invalid{Message: of.Message}
	if i != nil {
		out.Details = append(out.Details, i.Details...)
	}
	for _, d := range of.Details {
		path := (*place)(nil).index(n).String()
		if d.Path != "/" {
			path += d.Path
		}
		out.Details = append(out.Details, Detail{Path: path, Errors: d.Errors})
	}
	return out
}

// refuse returns a refusal with one detail.
func refuse(path, format string, args ...any) error {
	f := faults{message: MessageObject}
	f.add(at(path), format, args...)
	return f.err()
}

// place is a path under construction. Its text is only made when there is something to report.
type place struct {
	up   *place
	name string // "/name" or "(3)"
}

func at(path string) *place {
	if path == "/" || path == "" {
		return nil
	}
	return &place{name: path}
}

func (p *place) field(name string) *place { return &place{up: p, name: "/" + name} }
func (p *place) index(i int) *place       { return &place{up: p, name: "(" + strconv.Itoa(i) + ")"} }

func (p *place) String() string {
	if p == nil {
		return "/"
	}
	var parts []string
	for q := p; q != nil; q = q.up {
		parts = append(parts, q.name)
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteString(parts[i])
	}
	return b.String()
}

// faults collects what is wrong, one entry a path in the order in which the paths came up first.
type faults struct {
	message string
	details []Detail
}

func (f *faults) add(p *place, format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	path := p.String()
	for i := range f.details {
		if f.details[i].Path == path {
			f.details[i].Errors = append(f.details[i].Errors, text)
			return
		}
	}
	f.details = append(f.details, Detail{Path: path, Errors: []string{text}})
}

func (f *faults) err() error {
	if len(f.details) == 0 {
		return nil
	}
	return &Invalid{Message: f.message, Details: f.details}
}
