package supervisor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func TestSpecKeepsItsBytes(t *testing.T) {
	want := Spec{
		ID: "x", Path: "/bin/\xff", Args: []string{"", "a", "\xfe", ""}, Env: []string{"A=\x80"}, Dir: "/d\xff",
		Stdout: "/o", Stderr: "/e", Credential: &Credential{UID: 1, GID: 2, Groups: []uint32{3}}, Cgroups: []string{"/c"},
		Note: []byte("\x00\xffn"),
	}
	frame, err := encodeFrame(request{Seq: 1, Op: opStart, ID: want.ID, Start: want.wire()})
	if err != nil {
		t.Fatal(err)
	}
	var req request
	if err := readFrame(bytes.NewReader(frame), &req); err != nil {
		t.Fatal(err)
	}
	if got := req.Start.spec(req.ID); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBadFrames(t *testing.T) {
	frame := func(body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	for name, tt := range map[string]struct {
		in   []byte
		want string
	}{
		"half a head":    {[]byte{0, 0}, io.ErrUnexpectedEOF.Error()},
		"half a body":    {frame(`{"seq":1}`)[:8], io.ErrUnexpectedEOF.Error()},
		"no body":        {frame("")[:4], "unexpected end of JSON"},
		"too long":       {[]byte{0xff, 0xff, 0xff, 0xff}, fmt.Sprintf("%d are allowed", maxFrame)},
		"not JSON":       {frame("hello"), "cannot decode"},
		"unended string": {frame(`{"argv":"YWJj"}`), errUnended.Error()},
		"wrong type":     {frame(`{"seq":"x"}`), "cannot decode"},
		"negative":       {frame(`{"seq":-1}`), "cannot decode"},
	} {
		t.Run(name, func(t *testing.T) {
			var req request
			if err := readFrame(bytes.NewReader(tt.in), &req); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if err := readFrame(bytes.NewReader(nil), new(request)); !errors.Is(err, io.EOF) {
		t.Errorf("end of stream: got %v, want EOF", err)
	}
	if _, err := encodeFrame(strings.Repeat("x", maxFrame)); err == nil {
		t.Error("a frame beyond the limit is made")
	}
}

// A length alone must not make us allocate.
func TestLyingLength(t *testing.T) {
	in := append(binary.BigEndian.AppendUint32(nil, maxFrame), "{}"...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if err := readFrame(bytes.NewReader(in), new(request)); err == nil {
			t.Fatal("half a frame is read")
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / 100; got > 64<<10 {
		t.Errorf("%d bytes allocated for a frame of two", got)
	}
}

// A server that gets nonsense drops the connection and serves the others.
func TestNonsenseIsDropped(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	for _, in := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x02{}", "\x00\x00\x00\x05hello", "\xff\xff\xff\xff"} {
		conn, err := dial(t.Context(), n.dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(conn); len(rest) > 0 {
			t.Errorf("%q: answered %q, %v", in, rest, err)
		}
		conn.Close()
	}
	if _, err := c.call(t.Context(), request{Op: "dance"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown operation: got %v, want ErrInvalid", err)
	}
	if _, err := c.call(t.Context(), request{Op: opStart, ID: "x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("start without a spec: got %v, want ErrInvalid", err)
	}
	if _, err := c.Hello(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzFrame(f *testing.F) {
	spec := Spec{ID: "x", Path: "/bin/sh", Args: []string{"sh"}, Dir: "/"}
	for _, req := range []request{{Seq: 1, Op: opHello}, {Seq: 2, Op: opStart, ID: "x", Start: spec.wire()}, {Seq: 3, Op: opKill, ID: "x", Millis: 5}} {
		frame, err := encodeFrame(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var req request
		if readFrame(bytes.NewReader(in), &req) != nil {
			return
		}
		// What was understood can be said again, and means the same.
		frame, err := encodeFrame(req)
		if err != nil {
			return // it grew beyond the limit
		}
		var again request
		if err := readFrame(bytes.NewReader(frame), &again); err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if req.Start != nil {
			spec := req.Start.spec(req.ID)
			_ = spec.validate()
		}
	})
}

func FuzzRecord(f *testing.F) {
	r := record{Container: Container{ID: "x", PID: 1, Ticks: 2, Exit: &Exit{Known: true, Status: 9}}, Boot: "b"}
	text, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := decodeRecord(in)
		if err != nil {
			return
		}
		text, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRecord(text); err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
	})
}

func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1 (a) b) (c) S 1 2 3 4 5"))
	f.Fuzz(func(_ *testing.T, in []byte) { _, _ = parseStat(in) })
}

func TestParseStat(t *testing.T) {
	line := "42 (evil) 1 (name) Z 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 1792\n"
	got, err := parseStat([]byte(line))
	want := proc{pid: 42, ppid: 7, pgrp: 8, sid: 9, state: 'Z', ticks: 12345, exit: 1792}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42", "42 (a", "x (a) S 1 2 3", "42 (a) S 1", ") ("} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	own, err := readProc(os.Getpid())
	if err != nil || own.pid != os.Getpid() || own.ppid != os.Getppid() || own.ticks == 0 {
		t.Errorf("got %+v, %v", own, err)
	}
}

// The oldest format must stay readable.
func TestGoldenRecord(t *testing.T) {
	text, err := os.ReadFile("testdata/record-1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "web.1" || r.PID != 4711 || r.Ticks != 123456 || r.Boot != "2c1b0b0e-5d7e-4b0e-9a39-0d0a54e9a6a1" ||
		len(r.Cgroups) != 1 || r.Exit == nil || !r.Exit.Known || r.Exit.Status != 1792 || r.Started.Year() != 2026 {
		t.Errorf("got %+v, exit %+v", r, r.Exit)
	}
}
