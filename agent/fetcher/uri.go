package fetcher

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"starling/master/mesos"
)

// source is a URI taken apart.
type source struct {
	kind kind
	// uri is what to ask for; for a local file its path.
	uri string
}

type kind uint8

const (
	web kind = iota
	ftp
	local
	hadoop
)

// uriMax bounds a URI, in bytes.
const uriMax = 8 << 10

// parse takes a URI apart. A relative path stays relative: resolve it against the frameworks' home.
func parse(value string) (source, error) {
	value = strings.TrimLeft(value, " \t\r\n")
	switch {
	case value == "":
		return source{}, errors.New("it is empty")
	case len(value) > uriMax:
		return source{}, fmt.Errorf("it is longer than %d bytes", uriMax)
	case strings.ContainsAny(value, "\\'\x00"):
		return source{}, errors.New("it contains a backslash, a single quote or a NUL byte")
	}
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		return source{kind: local, uri: value}, nil
	}
	scheme = strings.ToLower(scheme)
	if scheme == "file" {
		rest = strings.TrimPrefix(rest, "localhost")
		if !strings.HasPrefix(rest, "/") {
			return source{}, errors.New("a file of another machine can't be had: file:// needs an absolute path behind it")
		}
		return source{kind: local, uri: rest}, nil
	}
	if _, at, ok := strings.Cut(rest, "/"); !ok || at == "" {
		return source{}, errors.New("it has no path behind the host")
	}
	s := source{kind: hadoop, uri: value}
	switch scheme {
	case "http", "https":
		s.kind = web
	case "ftp", "ftps":
		s.kind = ftp
	}
	return s, nil
}

// target is where in the sandbox a URI goes: its output_file, or the last part of its path, with the query if there is one.
func target(uri *mesos.CommandInfo_URI) (string, error) {
	name := uri.GetOutputFile()
	if uri.OutputFile == nil {
		value := strings.TrimSpace(uri.GetValue())
		if _, rest, ok := strings.Cut(value, "://"); ok {
			value = rest
		}
		if name = value[strings.LastIndexByte(value, '/')+1:]; name == "" {
			return "", errors.New("its path names no file: set output_file")
		}
	}
	clean := filepath.Clean(name)
	switch {
	case !filepath.IsLocal(name) || clean == ".":
		return "", fmt.Errorf("output_file %q does not lie below the sandbox", name)
	case strings.ContainsRune(name, 0) || strings.HasSuffix(name, "/"):
		return "", fmt.Errorf("output_file %q is no name of a file", name)
	case len(path.Base(clean)) > 240 || len(clean) > 4000:
		return "", errors.New("the name of the file is too long: set output_file")
	case clean == "stdout" || clean == "stderr":
		return "", fmt.Errorf("it would take the place of the sandbox's own file %q: set output_file", clean)
	}
	return clean, nil
}

// Check tells what is wrong with URIs that can be told without fetching them: all of it, joined, a sentence each. Nil is no
// promise that they can be fetched.
func Check(uris []*mesos.CommandInfo_URI) error {
	var faults []error
	for _, uri := range uris {
		_, err := parse(uri.GetValue())
		if err == nil {
			_, err = target(uri)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("cannot fetch %q: %w", Redact(uri.GetValue()), err))
		}
	}
	return errors.Join(faults...)
}

// secretParameter finds parameters whose names say that their values are nobody's business.
var secretParameter = regexp.MustCompile(`(?i)([?&;][^=&;]*(?:token|secret|passw|signature|sig|credential|key)[^=&;]*=)[^&;#]*`)

// Redact returns a URI as it may be shown: what stands for a user or a secret is ***.
func Redact(uri string) string {
	uri = strings.ToValidUTF8(strings.TrimSpace(uri), "\uFFFD")
	if scheme, rest, ok := strings.Cut(uri, "://"); ok {
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		// A password with a slash in it is no valid one, and all the same nothing to be shown.
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			rest = "***" + rest[at:]
		} else if at := strings.LastIndexByte(rest, '@'); at >= 0 && strings.IndexByte(rest[:end], ':') >= 0 && !port(rest[:end]) {
			rest = "***" + rest[at:]
		}
		uri = scheme + "://" + rest
	}
	uri = secretParameter.ReplaceAllString(uri, "${1}***")
	if len(uri) > 300 {
		uri = uri[:300] + "..."
	}
	return uri
}

// port tells whether an authority without user ends with a port, or is an address in brackets.
func port(authority string) bool {
	tail := authority[strings.LastIndexByte(authority, ':')+1:]
	return strings.Trim(tail, "0123456789") == "" || strings.HasSuffix(authority, "]")
}
