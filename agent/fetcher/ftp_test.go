package fetcher

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"starling/master/mesos"
)

// ftpServer speaks as much of FTP as one download takes. answers replace what it says to a command.
type ftpServer struct {
	addr    string
	answers map[string]string
	mu      sync.Mutex
	heard   []string
}

func serveFTP(t *testing.T, answers map[string]string) *ftpServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &ftpServer{addr: ln.Addr().String(), answers: answers}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); serving.Wait() })
	return s
}

func (s *ftpServer) serve(conn net.Conn) {
	defer conn.Close()
	data, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer data.Close()
	port := data.Addr().(*net.TCPAddr).Port
	say := func(command, usual string) {
		if other, ok := s.answers[command]; ok {
			usual = strings.ReplaceAll(other, "PORT", fmt.Sprintf("%d,%d", port>>8, port&255))
		}
		fmt.Fprintf(conn, "%s\r\n", usual)
	}
	say("", "220-many\r\n220 welcome")
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		s.mu.Lock()
		s.heard = append(s.heard, lines.Text())
		s.mu.Unlock()
		switch command, rest, _ := strings.Cut(lines.Text(), " "); command {
		case "USER":
			say(command, "331 password?")
		case "PASS":
			say(command, "230 in")
		case "TYPE":
			say(command, "200 binary")
		case "EPSV":
			say(command, fmt.Sprintf("229 Entering (|||%d|)", port))
		case "PASV":
			say(command, "502 no")
		case "RETR":
			if rest != "/dir/a b" {
				say(command, "550 no such file")
				continue
			}
			say(command, "150 here it comes")
			to, err := data.Accept()
			if err != nil {
				return
			}
			_, _ = to.Write([]byte("over ftp"))
			_ = to.Close()
			say("done", "226 done")
		case "QUIT":
			say(command, "221 bye")
			return
		default:
			say(command, "500 what?")
		}
	}
}

func TestFTP(t *testing.T) {
	f := newFetcher(t, nil)
	for name, tc := range map[string]struct {
		answers         map[string]string
		user, path, err string
	}{
		"anonymous":            {path: "/dir/a%20b"},
		"with a password":      {user: "joe:s3cret@", path: "/dir/a%20b"},
		"no password is asked": {answers: map[string]string{"USER": "230 in"}, path: "/dir/a%20b"},
		"the older way":        {answers: map[string]string{"EPSV": "500 what?", "PASV": "227 Entering (10,255,255,1,PORT)"}, path: "/dir/a%20b"},
		"not there":            {path: "/dir/c", err: `the server answered "550 no such file"`},
		"not let in":           {user: "joe:s3cret@", answers: map[string]string{"PASS": "530 no"}, path: "/x", err: `cannot log in: the server answered "530 no"`},
		"full":                 {answers: map[string]string{"": "421 too many"}, path: "/x", err: "421 too many"},
		"no passive mode":      {answers: map[string]string{"EPSV": "500 no"}, path: "/x", err: "502 no"},
		"nonsense":             {answers: map[string]string{"EPSV": "229 (|||x|)"}, path: "/x", err: "names no port"},
		"cut short":            {answers: map[string]string{"done": "426 aborted"}, path: "/dir/a%20b", err: "426 aborted"},
		"two lines":            {path: "/x%0d%0aDELE%20y", err: "the end of a line"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveFTP(t, tc.answers)
			dir := box(t)
			err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri("ftp://"+tc.user+s.addr+tc.path, to("got"))}})
			if tc.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := read(t, filepath.Join(dir, "got")); got != "over ftp" {
					t.Errorf("got %q", got)
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if tc.user != "" && (len(s.heard) < 2 || s.heard[0] != "USER joe" || s.heard[1] != "PASS s3cret") {
				t.Errorf("heard %q", s.heard)
			}
		})
	}
}
