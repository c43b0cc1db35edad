package api

import (
	"bufio"
	"encoding/json"
)

// printer writes JSON piece by piece, in the form that send gives to a whole: an indent of one space, and one more at the
// beginning of every line but the first.
type printer struct {
	w     *bufio.Writer
	depth int
	// filled is set when the object or list that is open has something in it.
	filled bool
	err    error
}

// failed tells whether what is printed reaches nobody any more.
func (p *printer) failed() bool { return p.err != nil }

func (p *printer) print(s string) {
	if p.err == nil {
		_, p.err = p.w.WriteString(s)
	}
}

func (p *printer) line() {
	p.print("\n ")
	for range p.depth {
		p.print(" ")
	}
}

// next goes to the place of the next item.
func (p *printer) next() {
	if p.filled {
		p.print(",")
	}
	p.line()
	p.filled = true
}

// open begins an object or a list, whose first character is given.
func (p *printer) open(first string) {
	p.print(first)
	p.depth++
	p.filled = false
}

// close ends an object or a list, whose last character is given.
func (p *printer) close(last string) {
	p.depth--
	if p.filled {
		p.line()
	}
	p.print(last)
	p.filled = true
}

// key begins the next member of an object.
func (p *printer) key(name string) {
	p.next()
	p.value(name)
	p.print(": ")
}

// value prints a value that has no others in it.
func (p *printer) value(v any) {
	data, err := json.Marshal(v)
	if p.err == nil {
		p.err = err
	}
	p.print(string(data))
}

// member prints a member of an object that has no others in it.
func (p *printer) member(name string, v any) {
	p.key(name)
	p.value(v)
}
