package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/testenv"
)

func unpackLayer(t testing.TB, b []byte, l Limits) (into, LayerStats, error) {
	t.Helper()
	f := folder(t)
	stats, err := Layer(t.Context(), bytes.NewReader(b), f.root, LayerOptions{Limits: l})
	return f, stats, err
}

func xattr(t testing.TB, name, attr string) string {
	t.Helper()
	b := make([]byte, 256)
	n, err := unix.Lgetxattr(name, attr, b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func isDeleted(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func TestLayerKeepsWhatProgramsSee(t *testing.T) {
	testenv.NeedRoot(t, "to unpack layers")
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	plain := tarOf(t,
		item{name: "./", kind: tar.TypeDir, mode: 0o711},
		item{name: "bin/", kind: tar.TypeDir, mode: 0o555},
		item{name: "bin/su", body: "su", mode: 0o4755, uid: 0},
		item{name: "bin/ping", body: "ping", mode: 0o755, pax: map[string]string{
			"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "n",
			"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
		}},
		item{name: "tmp/", kind: tar.TypeDir, mode: 0o1777, uid: 7, gid: 8},
		item{name: "dev/null", kind: tar.TypeChar, mode: 0o666, major: 1, minor: 3},
		item{name: "dev/disk", kind: tar.TypeBlock, mode: 0o600, major: 8, minor: 1},
		item{name: "run/pipe", kind: tar.TypeFifo, mode: 0o620},
		item{name: "/abs/olute", body: "x", uid: 1000, gid: 1001},
		item{name: "etc/link", kind: tar.TypeSymlink, link: "/abs/olute", uid: 5, gid: 6},
		item{name: "etc/hard", kind: tar.TypeLink, link: "/abs/olute"},
	)
	for _, how := range []string{"", "gz", "zst", "bz2", "xz"} {
		f, stats, err := unpackLayer(t, compress(t, how, plain), Limits{})
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		sum := sha256.Sum256(plain)
		if want := "sha256:" + hex.EncodeToString(sum[:]); stats.DiffID != want || stats.Entries != 11 {
			t.Errorf("%s: %+v, want %s", how, stats, want)
		}
		if how != "" {
			continue
		}
		for name, want := range map[string]struct {
			mode     fs.FileMode
			uid, gid int
		}{
			"":         {0o711 | fs.ModeDir, 0, 0},
			"bin":      {0o555 | fs.ModeDir, 0, 0},
			"bin/su":   {0o755 | fs.ModeSetuid, 0, 0},
			"tmp":      {0o777 | fs.ModeSticky | fs.ModeDir, 7, 8},
			"dev/null": {0o666 | fs.ModeDevice | fs.ModeCharDevice, 0, 0},
			"dev/disk": {0o600 | fs.ModeDevice, 0, 0},
			"run/pipe": {0o620 | fs.ModeNamedPipe, 0, 0},
			"run":      {0o755 | fs.ModeDir, 0, 0},
			"etc/hard": {0o644, 1000, 1001},
			"etc/link": {0o777 | fs.ModeSymlink, 5, 6},
		} {
			info, err := os.Lstat(filepath.Join(f.dir, name))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			st := info.Sys().(*syscall.Stat_t)
			if info.Mode() != want.mode || int(st.Uid) != want.uid || int(st.Gid) != want.gid {
				t.Errorf("%q is %v of %d:%d, want %v of %d:%d", name, info.Mode(), st.Uid, st.Gid, want.mode, want.uid, want.gid)
			}
			if name != "run" && name != "etc" && !info.ModTime().Equal(then) {
				t.Errorf("%q is of %v", name, info.ModTime())
			}
		}
		ping := filepath.Join(f.dir, "bin/ping")
		if got := xattr(t, ping, "security.capability"); got != capability {
			t.Errorf("capability %q", got)
		}
		for _, attr := range []string{"trusted.overlay.redirect", "user.overlay.opaque"} {
			if got := xattr(t, ping, attr); got != "" {
				t.Errorf("%s is %q", attr, got)
			}
		}
	}
}

func TestDeletionsMeanTheLayersBelow(t *testing.T) {
	testenv.NeedRoot(t, "to unpack layers")
	f, stats, err := unpackLayer(t, tarOf(t,
		item{name: "etc/.wh.gone"},
		item{name: "a/.wh..wh..opq"}, item{name: "a/new", body: "x"},
		item{name: "both", body: "x"}, item{name: ".wh.both"},
		item{name: "dir/x", body: "x"}, item{name: ".wh.dir"},
		item{name: ".wh.later"}, item{name: "later/", kind: tar.TypeDir, mode: 0o755},
		item{name: ".wh.deep"}, item{name: "deep/down/x", body: "x"},
		item{name: ".wh.file"}, item{name: "file", body: "x"},
		item{name: ".wh..wh.plnk", body: "aufs"},
	), Limits{})
	if err != nil || stats.Opaque {
		t.Fatalf("%+v, %v", stats, err)
	}
	if !isDeleted(filepath.Join(f.dir, "etc/gone")) {
		t.Error("a deletion is not marked")
	}
	for name, want := range map[string]string{"a": "y", "dir": "y", "later": "y", "deep": "y", "deep/down": "", "etc": ""} {
		if got := xattr(t, filepath.Join(f.dir, name), opaqueXattr); got != want {
			t.Errorf("%s: opaque is %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"both", "file", "dir/x", "deep/down/x", "a/new"} {
		if b, err := os.ReadFile(filepath.Join(f.dir, name)); err != nil || string(b) != "x" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if entries, _ := os.ReadDir(f.dir); len(entries) != 7 {
		t.Errorf("%d entries, want 7: %v", len(entries), entries)
	}
	if _, stats, err := unpackLayer(t, tarOf(t, item{name: ".wh..wh..opq"}), Limits{}); err != nil || !stats.Opaque {
		t.Errorf("a layer that hides all: %+v, %v", stats, err)
	}
}

// In a layer a name means what it would in a chroot; nothing reaches the node.
func TestLayersStayInside(t *testing.T) {
	testenv.NeedRoot(t, "to unpack layers")
	f, _, err := unpackLayer(t, tarOf(t,
		item{name: "esc", kind: tar.TypeSymlink, link: "../../outside"}, item{name: "esc", body: "new"},
		item{name: "root", kind: tar.TypeSymlink, link: "/"}, item{name: "root/in", body: "in"},
		item{name: "up", kind: tar.TypeSymlink, link: "../../../.."}, item{name: "up/in2", body: "in2"},
		item{name: "abs", kind: tar.TypeSymlink, link: "/made/here"}, item{name: "abs/in3", body: "in3"},
		item{name: "dir/x", body: "x"}, item{name: "dir", kind: tar.TypeSymlink, link: "other"}, item{name: "dir/y", body: "y"},
		item{name: "f", body: "f"}, item{name: "f/g", body: "g"},
	), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	f.untouched(t)
	for name, want := range map[string]string{"esc": "new", "in": "in", "in2": "in2", "made/here/in3": "in3", "other/y": "y", "f/g": "g"} {
		if b, err := os.ReadFile(filepath.Join(f.dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	for what, items := range map[string][]item{
		"name that leaves":       {{name: "../outside", body: "x"}},
		"name with dots":         {{name: "a/../../outside", body: "x"}},
		"deletion that leaves":   {{name: ".wh..."}, {name: "../.wh.outside"}},
		"deletion of a parent":   {{name: ".wh..."}, {name: ".wh..wh.x"}, {name: "x/.wh..."}, {name: ".wh.."}},
		"hard link that leaves":  {{name: "h", kind: tar.TypeLink, link: "../../outside"}},
		"hard link to nothing":   {{name: "h", kind: tar.TypeLink, link: "lacks"}},
		"hard link to a folder":  {{name: "d/", kind: tar.TypeDir, mode: 0o755}, {name: "h", kind: tar.TypeLink, link: "d"}},
		"links without end":      {{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"}, {name: "a/x", body: "x"}},
		"the root as a file":     {{name: ".", body: "x"}},
		"too many entries":       {{name: "1"}, {name: "2"}, {name: "3"}, {name: "4"}, {name: "5"}, {name: "6"}},
		"more bytes than may be": {{name: "big", body: strings.Repeat("x", 5000)}},
	} {
		f, _, err := unpackLayer(t, tarOf(t, items...), Limits{Entries: 5, Bytes: 4000})
		if err == nil {
			t.Errorf("%s: unpacked: %v", what, list(t, f.dir))
		} else if !errors.Is(err, ErrUnsafe) && !errors.Is(err, ErrLimit) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
		f.untouched(t)
	}
}

// A pipe waits for who writes to it, and a device acts, as soon as it is opened: neither may be where a folder is expected.
func TestLayersOpenNoPipes(t *testing.T) {
	testenv.NeedRoot(t, "to unpack layers")
	for what, items := range map[string][]item{
		"hides all in a pipe":     {{name: "a", kind: tar.TypeFifo}, {name: "a/.wh..wh..opq"}},
		"hides a pipe's below":    {{name: "a", kind: tar.TypeFifo}, {name: "l", kind: tar.TypeSymlink, link: "a"}, {name: "l/.wh..wh..opq"}},
		"hides all in a device":   {{name: "a", kind: tar.TypeChar, major: 10, minor: 255}, {name: "a/.wh..wh..opq"}},
		"folder becomes a pipe":   {{name: "a/b/", kind: tar.TypeDir, mode: 0o755}, {name: "a", kind: tar.TypeFifo}},
		"folder becomes a device": {{name: "a/b/", kind: tar.TypeDir, mode: 0o755}, {name: "a", kind: tar.TypeChar, major: 10, minor: 255}},
	} {
		b, f := tarOf(t, items...), folder(t)
		done := make(chan error, 1)
		go func() {
			_, err := Layer(t.Context(), bytes.NewReader(b), f.root, LayerOptions{})
			done <- err
		}()
		select {
		case err := <-done:
			if hides := strings.HasPrefix(what, "hides"); hides && !errors.Is(err, ErrUnsafe) || !hides && err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: unpacking waits for ever", what)
		}
	}
}

func TestLayerIsReadToItsEnd(t *testing.T) {
	testenv.NeedRoot(t, "to unpack layers")
	b := append(tarOf(t, item{name: "a", body: "a"}), make([]byte, 100_000)...)
	b = append(b, "more"...)
	_, stats, err := unpackLayer(t, compress(t, "gz", b), Limits{})
	sum := sha256.Sum256(b)
	if want := "sha256:" + hex.EncodeToString(sum[:]); err != nil || stats.DiffID != want {
		t.Errorf("%s, %v; want %s", stats.DiffID, err, want)
	}
	if _, _, err := unpackLayer(t, compress(t, "gz", b)[:100], Limits{}); err == nil {
		t.Error("a layer that is cut was unpacked")
	}
}

func TestWatchEndsALayer(t *testing.T) {
	testenv.NeedRoot(t, "to unpack layers")
	f := folder(t)
	full := errors.New("the disk is full")
	b := tarOf(t, item{name: "a", body: strings.Repeat("x", 40<<20)}, item{name: "b", body: "b"})
	_, err := Layer(t.Context(), bytes.NewReader(b), f.root, LayerOptions{Watch: func() error { return full }})
	if !errors.Is(err, full) {
		t.Errorf("%v, want that the disk is full", err)
	}
}

func FuzzLayer(f *testing.F) {
	testenv.NeedRoot(f, "to unpack layers")
	for _, items := range attacks {
		f.Add(tarOf(f, items...))
	}
	f.Add(tarOf(f, item{name: ".wh.x"}, item{name: "x/.wh..wh..opq"}, item{name: "x", kind: tar.TypeSymlink, link: "/"}, item{name: "x/y/.wh.z"}))
	f.Add(compress(f, "gz", tarOf(f, plainItems...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, _, _ := unpackLayer(t, b, Limits{Bytes: 4 << 20, Entries: 100, Depth: 16})
		in.untouched(t)
	})
}
