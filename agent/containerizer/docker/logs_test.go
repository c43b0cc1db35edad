package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// at is a time of the log, n nanoseconds after some moment.
func at(n int) int64 { return time.Date(2026, 1, 2, 3, 4, 5, n, time.UTC).UnixNano() }

// prefix is how the engine writes it.
func prefix(n int) string {
	return time.Unix(0, at(n)).UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " "
}

func TestOutputGoesOnWhereItStopped(t *testing.T) {
	type message struct {
		at   int
		text string
	}
	all := []message{{1, "a\n"}, {2, "b"}, {2, "b"}, {2, "b\n"}, {3, "c\n"}, {1, "back in time\n"}, {5, "d\n"}}
	var whole strings.Builder
	for _, m := range all {
		whole.WriteString(m.text)
	}
	// Whatever was written and whatever was noted: the next stream, which begins anywhere before that, completes the file.
	for noted := range all {
		for written := noted; written <= len(all); written++ {
			for cut := range 2 {
				path := filepath.Join(t.TempDir(), "stdout")
				var m mark
				o := output{path: path, mark: &m, first: true}
				if err := o.begin(); err != nil {
					t.Fatal(err)
				}
				var saved mark
				for i, msg := range all[:written] {
					if i == noted {
						saved = m
					}
					o.add(at(msg.at), []byte(msg.text))
					if err := o.flush(); err != nil {
						t.Fatal(err)
					}
				}
				if noted == written {
					saved = m
				}
				o.close()
				if written > noted && cut == 1 {
					// The last write came only halfway.
					info, _ := os.Stat(path)
					if err := os.Truncate(path, info.Size()-1); err != nil {
						t.Fatal(err)
					}
				}
				next := output{path: path, mark: &saved, first: true}
				if err := next.begin(); err != nil {
					t.Fatal(err)
				}
				for _, msg := range all {
					next.add(at(msg.at), []byte(msg.text))
				}
				if err := next.flush(); err != nil {
					t.Fatal(err)
				}
				next.close()
				if got := read(t, path); got != whole.String() {
					t.Errorf("noted %d, written %d, cut %d: got %q, want %q", noted, written, cut, got, whole.String())
				}
			}
		}
	}
}

func TestOutputThatCannotBeWrittenComesAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdout")
	var m mark
	o := output{path: path, mark: &m, first: true}
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	o.add(at(1), []byte("one\n"))
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	good := m
	file := o.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	o.file = full
	o.add(at(2), []byte("two\n"))
	if err := o.flush(); err == nil {
		t.Fatal("a full disk is no error")
	}
	if m != good {
		t.Errorf("got %+v, want %+v as before", m, good)
	}
	o.file = file
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"one\n", "two\n", "three\n"} {
		o.add(at(i+1), []byte(text))
	}
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	o.close()
	if got := read(t, path); got != "one\ntwo\nthree\n" {
		t.Errorf("got %q", got)
	}
}

func TestSinceAllowsForDisorder(t *testing.T) {
	second := int64(time.Second)
	for _, tt := range []struct {
		place place
		want  int64
	}{
		{place{Last: 100 * second, Out: mark{Time: 100 * second}, Err: mark{Time: 50 * second}}, 90 * second},
		{place{Last: 100 * second, Out: mark{Time: 100 * second}}, 90 * second},
		// The next piece of an open line has the time of the first.
		{place{Last: 100 * second, Out: mark{Time: 100 * second}, Err: mark{Time: 50 * second, Open: true}}, 50 * second},
		// A clock that was set back.
		{place{Last: 20 * second, Out: mark{Time: 20 * second}, Err: mark{Time: 50 * second}}, 10 * second},
	} {
		if got := tt.place.since(); got.UnixNano() != tt.want {
			t.Errorf("%+v: got %v", tt.place, got.UnixNano())
		}
	}
	if empty := (&place{}).since(); !empty.IsZero() {
		t.Errorf("got %v, want the beginning", empty)
	}
}

func TestSinksAreNotLed(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "."} {
		if f, err := openSink(filepath.Join(dir, name)); err == nil {
			f.Close()
			t.Errorf("%s is opened", name)
		}
	}
}

func TestMessages(t *testing.T) {
	type got struct {
		second bool
		text   string
	}
	var all []got
	each := func(second bool, at int64, text []byte) error {
		if n := len(all); n > 0 && !strings.HasSuffix(all[n-1].text, "\n") && all[n-1].second == second {
			all[n-1].text += string(text)
			return nil
		}
		all = append(all, got{second, string(text)})
		return nil
	}
	frame := func(kind byte, text string) string {
		head := make([]byte, 8)
		head[0] = kind
		binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
		return string(head) + text
	}
	long := strings.Repeat("x", 40000)
	in := frame(1, prefix(1)+"one\n") + frame(2, prefix(2)+"two\n") + frame(1, prefix(3)+long) + frame(1, prefix(3)+"end\n")
	if err := framed(bufio.NewReader(strings.NewReader(in)), each); err == nil || err.Error() != "EOF" {
		t.Errorf("got %v, want the end", err)
	}
	want := fmt.Sprint([]got{{false, "one\n"}, {true, "two\n"}, {false, long + "end\n"}})
	if fmt.Sprint(all) != want {
		t.Errorf("got %.300v", all)
	}
	all = nil
	// A terminal has no frames; the pieces of a line are glued together by their times alone.
	in = prefix(1) + "one\r\n" + prefix(2) + long[:16384] + prefix(2) + long[:16384] + prefix(2) + "end\r\n" + prefix(4) + "no newline"
	if err := unframed(bufio.NewReaderSize(strings.NewReader(in), 4096), each); err == nil || err.Error() != "EOF" {
		t.Errorf("got %v, want the end", err)
	}
	want = fmt.Sprint([]got{{false, "one\r\n"}, {false, long[:16384] + long[:16384] + "end\r\n"}, {false, "no newline"}})
	if fmt.Sprint(all) != want {
		t.Errorf("got %.300v", all)
	}
	for _, bad := range []string{"\x01\x00\x00\x00\x00\x00\x00\x03abc", frame(3, "disk broken"), "\x09\x00\x00\x00\x00\x00\x00\x00", frame(1, prefix(1)+"cut")[:20]} {
		if err := framed(bufio.NewReader(strings.NewReader(bad)), each); err == nil || err.Error() == "EOF" {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// FuzzMessages must neither panic nor hand out what is not in the input.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(prefix(1)+"x\n"+prefix(1)+"y"), true)
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x21"+prefix(1)+"x\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, terminal bool) {
		read := framed
		if terminal {
			read = unframed
		}
		err := read(bufio.NewReaderSize(bytes.NewReader(data), 64), func(_ bool, _ int64, text []byte) error {
			if len(text) > len(data) {
				t.Errorf("%d bytes of %d", len(text), len(data))
			}
			return nil
		})
		if err == nil {
			t.Error("no error at the end")
		}
	})
}
