package flags

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// EnvFile adds the variables of a file in the manner of /etc/default to an environment, which counts more. The file has a
// line KEY=value for each, with "export" before it or not, the value in quotes or not; nothing in it is expanded or run. A
// file that does not exist adds nothing.
func EnvFile(path string, environ []string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return environ, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the environment's file: %w", err)
	}
	out := slices.Clone(environ)
	number := 0
	for text := range strings.SplitSeq(string(data), "\n") {
		number++
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(text, "export"); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			text = strings.TrimSpace(rest)
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \t\"'$`") {
			return nil, fmt.Errorf("%s:%d: not as in KEY=value", path, number)
		}
		if value, ok = unquote(value); !ok {
			return nil, fmt.Errorf("%s:%d: a quote of %s is not closed", path, number, key)
		}
		// Of two lines the later counts, as in a shell.
		out = slices.DeleteFunc(out, func(kv string) bool {
			return strings.HasPrefix(kv, key+"=") && !slices.Contains(environ, kv)
		})
		if !slices.ContainsFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, key+"=") }) {
			out = append(out, key+"="+value)
		}
	}
	return out, nil
}

// unquote takes one word as a shell does: quotes come off, a backslash takes the next character as it is, a space ends it. It
// reports false where a quote is not closed.
func unquote(text string) (string, bool) {
	var out strings.Builder
	var quote byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text) && (quote == 0 || strings.IndexByte("\"\\$`", text[i+1]) >= 0):
			i++
			out.WriteByte(text[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t'):
			return out.String(), true
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), quote == 0
}
