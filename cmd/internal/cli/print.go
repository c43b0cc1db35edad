package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// printer writes answers as people or programs want them.
type printer struct {
	out  io.Writer
	json bool
}

// text writes a line of text; it has been cleaned, or is our own.
func (p *printer) text(line string) error {
	_, err := io.WriteString(p.out, line+"\n")
	return err
}

// raw writes JSON as a node sent it, indented.
func (p *printer) raw(body []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(body), "", "  "); err != nil {
		return fmt.Errorf("the answer is not JSON: %w", err)
	}
	return p.text(plainJSON(b.String()))
}

// value writes something of our own as JSON.
func (p *printer) value(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.raw(body)
}

// done says what was done to a node.
func (p *printer) done(text, agentID string) error {
	if p.json {
		return p.value(map[string]string{"agent_id": agentID, "done": text})
	}
	return p.text(clean(text))
}

// table writes rows below a header, in columns. Cells are cleaned here.
func (p *printer) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if cell = clean(cell); cell == "" {
				cell = "-"
			}
			if i > 0 {
				cell = "\t" + cell
			}
			if _, err := io.WriteString(w, cell); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// clean makes text harmless to a terminal: what can't be printed is escaped as in Go.
func clean(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// plainJSON does the same for JSON text, in which only strings can hold such characters.
func plainJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := surrogates(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func surrogates(r rune) (high, low rune) {
	r -= 0x10000
	return 0xd800 + r>>10, 0xdc00 + r&0x3ff
}

// megabytes writes a number of MiB with the unit that suits it.
func megabytes(mib float64) string {
	switch {
	case mib >= 1<<20:
		return short(mib/(1<<20)) + " TiB"
	case mib >= 1<<10:
		return short(mib/(1<<10)) + " GiB"
	}
	return short(mib) + " MiB"
}

// short writes a number with at most one decimal.
func short(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// ago writes a number of seconds with the unit that suits it.
func ago(seconds float64) string {
	d := time.Duration(min(seconds, 1e9) * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return short(d.Seconds()) + "s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
