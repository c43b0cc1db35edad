package codec

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSONDepth is how many objects and arrays may stand in each other. The messages need about fifteen.
const maxJSONDepth = 64

// scanner walks over JSON text. Its methods expect pos at the first byte of what they are named after, blanks skipped,
// and leave it behind the last.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

func (s *scanner) errorf(format string, args ...any) error {
	return &SyntaxError{Offset: s.pos, Reason: fmt.Sprintf(format, args...)}
}

// unexpected describes what is at pos where something else had to be.
func (s *scanner) unexpected(want string) error {
	if s.pos >= len(s.data) {
		return s.errorf("unexpected end, expected %s", want)
	}
	r, _ := utf8.DecodeRune(s.data[s.pos:])
	return s.errorf("unexpected %q, expected %s", r, want)
}

// peek skips blanks and gives the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch b := s.data[s.pos]; b {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return b
		}
	}
	return 0
}

func (s *scanner) expect(b byte, want string) error {
	if s.peek() != b || s.pos >= len(s.data) {
		return s.unexpected(want)
	}
	s.pos++
	return nil
}

// enter and leave keep count of the nesting.
func (s *scanner) enter() error {
	if s.depth++; s.depth > maxJSONDepth {
		return s.errorf("nested deeper than %d levels", maxJSONDepth)
	}
	s.pos++
	return nil
}

func (s *scanner) leave() { s.pos++; s.depth-- }

// end checks that nothing but blanks follows.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.data) {
		return s.unexpected("the end")
	}
	return nil
}

// members calls each for every member of an object, with pos at its value. The key is valid until the next call.
func (s *scanner) members(each func(key []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.leave()
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.unexpected("a member name")
		}
		key, err := s.text()
		if err != nil {
			return err
		}
		if err := s.expect(':', "':'"); err != nil {
			return err
		}
		s.peek()
		if err := each(key); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.leave()
			return nil
		default:
			return s.unexpected("',' or '}'")
		}
	}
}

// elements calls each for every element of an array, with pos at it.
func (s *scanner) elements(each func() error) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.leave()
		return nil
	}
	for {
		s.peek()
		if err := each(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.leave()
			return nil
		default:
			return s.unexpected("',' or ']'")
		}
	}
}

// skip passes over any value and checks its syntax.
func (s *scanner) skip() error {
	switch b := s.peek(); {
	case b == '{':
		return s.members(func([]byte) error { return s.skip() })
	case b == '[':
		return s.elements(s.skip)
	case b == '"':
		_, err := s.text()
		return err
	case b == 't':
		return s.literal("true")
	case b == 'f':
		return s.literal("false")
	case b == 'n':
		return s.literal("null")
	default:
		_, err := s.number()
		return err
	}
}

func (s *scanner) literal(word string) error {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		return s.unexpected("a value")
	}
	s.pos += len(word)
	return nil
}

// number gives the text of a number, part of the data.
func (s *scanner) number() ([]byte, error) {
	n := numberLen(s.data[s.pos:])
	if n == 0 {
		return nil, s.unexpected("a value")
	}
	text := s.data[s.pos : s.pos+n]
	s.pos += n
	return text, nil
}

// numberLen is the length of the JSON number that b starts with, 0 for none.
func numberLen(b []byte) int {
	digits := func(i int) int {
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
		}
		return i
	}
	i := 0
	if i < len(b) && b[i] == '-' {
		i++
	}
	end := digits(i)
	if end == i || b[i] == '0' && end > i+1 {
		return 0
	}
	i = end
	if i < len(b) && b[i] == '.' {
		if end = digits(i + 1); end == i+1 {
			return 0
		}
		i = end
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		j := i + 1
		if j < len(b) && (b[j] == '+' || b[j] == '-') {
			j++
		}
		if end = digits(j); end == j {
			return 0
		}
		i = end
	}
	return i
}

// text gives the content of a string: a part of the data, or a copy if it holds escapes.
func (s *scanner) text() ([]byte, error) {
	start := s.pos + 1
	for i := start; i < len(s.data); i++ {
		switch b := s.data[i]; {
		case b == '"':
			s.pos = i + 1
			return s.data[start:i], nil
		case b == '\\' || b < ' ' || b >= utf8.RuneSelf:
			return s.slowText(start, i)
		}
	}
	s.pos = len(s.data)
	return nil, s.unexpected("'\"'")
}

// slowText goes on where text met something that wants a closer look.
func (s *scanner) slowText(start, i int) ([]byte, error) {
	out := append(make([]byte, 0, i-start+32), s.data[start:i]...)
	for i < len(s.data) {
		b := s.data[i]
		switch {
		case b == '"':
			s.pos = i + 1
			return out, nil
		case b == '\\':
			s.pos = i
			r, err := s.escape()
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
			i = s.pos
		case b < ' ':
			s.pos = i
			return nil, s.errorf("control character %q in a string", b)
		case b < utf8.RuneSelf:
			out = append(out, b)
			i++
		default:
			r, size := utf8.DecodeRune(s.data[i:])
			if r == utf8.RuneError && size == 1 {
				s.pos = i
				return nil, s.errorf("a string that is not UTF-8")
			}
			out = append(out, s.data[i:i+size]...)
			i += size
		}
	}
	s.pos = len(s.data)
	return nil, s.unexpected("'\"'")
}

// escape reads one escape sequence, or the two of a surrogate pair. Half a pair is U+FFFD.
func (s *scanner) escape() (rune, error) {
	if s.pos+1 >= len(s.data) {
		s.pos = len(s.data)
		return 0, s.unexpected("an escape")
	}
	b := s.data[s.pos+1]
	if b == 'u' {
		r, ok := s.hexRune(s.pos)
		if !ok {
			return 0, s.errorf("bad escape in a string")
		}
		s.pos += 6
		if utf16.IsSurrogate(r) {
			low, ok := s.hexRune(s.pos)
			if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
				s.pos += 6
				return pair, nil
			}
			return utf8.RuneError, nil
		}
		return r, nil
	}
	s.pos += 2
	switch b {
	case '"', '\\', '/':
		return rune(b), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	}
	s.pos -= 2
	return 0, s.errorf("bad escape in a string")
}

// hexRune reads \uXXXX at i.
func (s *scanner) hexRune(i int) (rune, bool) {
	if i+6 > len(s.data) || s.data[i] != '\\' || s.data[i+1] != 'u' {
		return 0, false
	}
	for _, b := range s.data[i+2 : i+6] {
		if !('0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'f') {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(string(s.data[i+2:i+6]), 16, 32)
	return rune(n), err == nil
}
