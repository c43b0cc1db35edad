package zookeeper

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	scheme      = "zk://"
	fileScheme  = "file://"
	defaultPort = 2181
	// maxURLFile is the largest file that is read for a URL, in bytes.
	maxURLFile = 64 << 10
)

// URL names an ensemble and a place in it: zk://user:password@host:port,host:port/path. The zero value names nothing.
type URL struct {
	// Hosts are the servers, each as "host:port"; an IPv6 address stands in brackets.
	Hosts []string
	// Path is where all is kept, with a leading slash and without a trailing one; never just "/".
	Path string
	// User is the user's name; empty where there are no credentials.
	User string

	password string // never shown
}

// String returns the URL without the credentials.
func (u URL) String() string {
	auth := ""
	if u.User != "" {
		auth = "***@"
	}
	return scheme + auth + strings.Join(u.Hosts, ",") + u.Path
}

// LogValue keeps the password out of logs.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// GoString keeps the password out of what %#v prints.
func (u URL) GoString() string { return u.String() }

// Format keeps the password out of what any verb prints.
func (u URL) Format(f fmt.State, _ rune) { io.WriteString(f, u.String()) }

// Parse reads a URL by the grammar of Mesos, or the file that holds one, named as file:///path. Its errors say what is wrong,
// and never show a password.
func Parse(value string) (URL, error) {
	value = strings.TrimSpace(value)
	if name, ok := strings.CutPrefix(value, fileScheme); ok {
		content, err := readFile(name)
		if err != nil {
			return URL{}, fmt.Errorf("cannot read the ZooKeeper URL: %w", err)
		}
		u, err := parse(strings.TrimSpace(content))
		if err != nil {
			return URL{}, fmt.Errorf("file %q: %w", name, err)
		}
		return u, nil
	}
	return parse(value)
}

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxURLFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxURLFile {
		return "", fmt.Errorf("file %q has more than %d bytes", name, maxURLFile)
	}
	return string(b), nil
}

func parse(value string) (URL, error) {
	rest, ok := strings.CutPrefix(value, scheme)
	if !ok {
		return URL{}, errors.New("a ZooKeeper URL begins with zk://, as in zk://host1:2181,host2:2181/mesos")
	}
	authority, path, ok := strings.Cut(rest, "/")
	if !ok {
		return URL{}, errors.New("the ZooKeeper URL has no path: it ends like zk://host:2181/mesos")
	}
	var u URL
	var err error
	// A password may have an @ of its own.
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, ok := strings.Cut(authority[:at], ":")
		if !ok || user == "" || password == "" {
			return URL{}, errors.New("the credentials of the ZooKeeper URL are not user:password")
		}
		if !utf8.ValidString(authority[:at]) || strings.ContainsFunc(authority[:at], unicode.IsControl) {
			return URL{}, errors.New("the credentials of the ZooKeeper URL have a control character")
		}
		u.User, u.password = user, password
		authority = authority[at+1:]
	}
	for host := range strings.SplitSeq(authority, ",") {
		if host, err = parseHost(host); err != nil {
			if strings.Contains(path, "@") {
				// What was taken for a host is most likely the beginning of the credentials.
				err = errors.New("the ZooKeeper URL has an @ behind its first slash: a user or password with a slash can't be written in it")
			}
			return URL{}, err
		}
		u.Hosts = append(u.Hosts, host)
	}
	if u.Path, err = parsePath("/" + path); err != nil {
		return URL{}, err
	}
	return u, nil
}

// parseHost checks one host with or without a port, and returns it with one.
func parseHost(value string) (string, error) {
	if value == "" {
		return "", errors.New("the ZooKeeper URL has an empty host")
	}
	host, port := value, strconv.Itoa(defaultPort)
	switch {
	case strings.HasPrefix(value, "["):
		end := strings.IndexByte(value, ']')
		if end < 0 {
			return "", fmt.Errorf("host %q of the ZooKeeper URL lacks a closing bracket", value)
		}
		host = value[1:end]
		if ip := net.ParseIP(host); ip == nil || !strings.Contains(host, ":") {
			return "", fmt.Errorf("host %q of the ZooKeeper URL is not an IPv6 address", value)
		}
		if after := value[end+1:]; after != "" {
			if after[0] != ':' {
				return "", fmt.Errorf("host %q of the ZooKeeper URL is not [address]:port", value)
			}
			port = after[1:]
		}
	case strings.Count(value, ":") > 1:
		return "", fmt.Errorf("host %q of the ZooKeeper URL is not host:port; an IPv6 address stands in brackets", value)
	case strings.Contains(value, ":"):
		host, port, _ = strings.Cut(value, ":")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
		return "", fmt.Errorf("port %q of host %q in the ZooKeeper URL is not a number from 1 to 65535", port, value)
	}
	if !strings.Contains(host, ":") && (host == "" || strings.ContainsFunc(host, notInHost)) {
		return "", fmt.Errorf("host %q of the ZooKeeper URL is neither a name nor an IP address", value)
	}
	return net.JoinHostPort(host, port), nil
}

// notInHost tells what can't be in a host's name; names that go beyond letters, digits and hyphens do occur.
func notInHost(r rune) bool {
	return r <= ' ' || r == utf8.RuneError || unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune(`/\?#@[]%"'`, r)
}

// parsePath checks a path, and returns it without a trailing slash.
func parsePath(path string) (string, error) {
	trimmed := strings.TrimSuffix(path, "/")
	if trimmed == "" {
		return "", errors.New(`the path of the ZooKeeper URL must not be just "/": it is something like /mesos`)
	}
	for segment := range strings.SplitSeq(trimmed[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return "", fmt.Errorf("path %q of the ZooKeeper URL has the segment %q", path, segment)
		}
	}
	if !utf8.ValidString(path) || strings.ContainsFunc(path, notInPath) {
		return "", fmt.Errorf("path %q of the ZooKeeper URL has a character that ZooKeeper does not take", path)
	}
	return trimmed, nil
}

// notInPath tells what ZooKeeper does not take in a path.
func notInPath(r rune) bool {
	return r <= 0x1f || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 && r <= 0xffff
}
