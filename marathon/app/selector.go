package app

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Selector picks apps by their labels. The zero value picks all.
type Selector struct {
	terms []selectorTerm
}

// selectorTerm asks for a label: that it exists and, unless values is nil, whether its value is among them.
type selectorTerm struct {
	label  string
	values []string
	not    bool
}

// Matches tells whether labels meet every term of the selector. A label that is not there meets none, not even != and
// notin.
func (s Selector) Matches(labels Labels) bool {
	for _, term := range s.terms {
		value, ok := labels[term.label]
		if !ok || term.values != nil && slices.Contains(term.values, value) == term.not {
			return false
		}
	}
	return true
}

// ParseSelector reads a label selector:
//
//	query    = [ selector *( "," selector ) ]
//	selector = term ("in" | "notin") "(" [ term *("," term) ] ")"
//	         / term ("==" | "!=") term
//	         / term
//	term     = 1*( "\" any-char / ALPHA / DIGIT / "-" / "_" / "." )
//
// White space between tokens does not count. The error is an *Invalid with the text that clients know.
func ParseSelector(query string) (Selector, error) {
	p := selectorParser{rest: query}
	s, err := p.query()
	if err != nil {
		return Selector{}, &Invalid{Message: fmt.Sprintf("Can not parse label selector %q: %v at character %d", query, err, len(query)-len(p.rest)+1)}
	}
	return s, nil
}

type selectorParser struct {
	rest string
}

func (p *selectorParser) skip() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// accept takes a token if it is the next one.
func (p *selectorParser) accept(token string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *selectorParser) query() (Selector, error) {
	var s Selector
	if p.skip(); p.rest == "" {
		return s, nil
	}
	for {
		term, err := p.selector()
		if err != nil {
			return s, err
		}
		s.terms = append(s.terms, term)
		if p.skip(); p.rest == "" {
			return s, nil
		}
		if !p.accept(",") {
			return s, fmt.Errorf("expected a comma or the end")
		}
	}
}

func (p *selectorParser) selector() (selectorTerm, error) {
	label, err := p.term()
	if err != nil {
		return selectorTerm{}, err
	}
	term := selectorTerm{label: label}
	switch {
	case p.accept("=="):
	case p.accept("!="):
		term.not = true
	case p.accept("notin"):
		term.not = true
		term.values, err = p.set()
		return term, err
	case p.accept("in"):
		term.values, err = p.set()
		return term, err
	default:
		return term, nil
	}
	value, err := p.term()
	term.values = []string{value}
	return term, err
}

// set reads a list in parentheses, which may be empty. It is never nil.
func (p *selectorParser) set() ([]string, error) {
	if !p.accept("(") {
		return nil, fmt.Errorf("expected an opening parenthesis")
	}
	values := []string{}
	if p.accept(")") {
		return values, nil
	}
	for {
		value, err := p.term()
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		if p.accept(")") {
			return values, nil
		}
		if !p.accept(",") {
			return nil, fmt.Errorf("expected a comma or a closing parenthesis")
		}
	}
}

// term reads one term. A backslash quotes the character after it.
func (p *selectorParser) term() (string, error) {
	p.skip()
	var b strings.Builder
	for len(p.rest) > 0 {
		c := p.rest[0]
		if c == '\\' {
			quoted, size := utf8.DecodeRuneInString(p.rest[1:])
			if quoted == utf8.RuneError {
				return "", fmt.Errorf("expected a character after the backslash")
			}
			b.WriteRune(quoted)
			p.rest = p.rest[1+size:]
			continue
		}
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			break
		}
		b.WriteByte(c)
		p.rest = p.rest[1:]
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("expected the name or value of a label")
	}
	return b.String(), nil
}
