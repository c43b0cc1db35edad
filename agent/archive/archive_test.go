package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"starling/agent/testenv"
)

var then = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

// item is an entry of an archive that a test makes.
type item struct {
	name, body, link string
	kind             byte
	mode             int64
	pax              map[string]string
	uid, gid         int
	major, minor     int64
}

func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := &tar.Header{
			Name: i.name, Linkname: i.link, Typeflag: i.kind, Mode: i.mode, Size: int64(len(i.body)), ModTime: then,
			PAXRecords: i.pax, Uid: i.uid, Gid: i.gid, Devmajor: i.major, Devminor: i.minor,
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, i := range items {
		h := &zip.FileHeader{Name: i.name, Method: zip.Deflate, Modified: then}
		mode, body := fs.FileMode(i.mode), i.body
		if mode == 0 {
			mode = 0o644
		}
		switch i.kind {
		case tar.TypeDir:
			mode |= fs.ModeDir
		case tar.TypeSymlink:
			mode |= fs.ModeSymlink
			body = i.link
		case tar.TypeChar:
			mode |= fs.ModeDevice | fs.ModeCharDevice
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if mode.IsDir() {
			continue
		}
		if _, err := io.WriteString(f, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t testing.TB, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "gz":
		w, _ = gzip.NewWriterLevel(&out, gzip.BestSpeed)
	case "xz":
		w, _ = xz.NewWriter(&out)
	case "zst":
		w, _ = zstd.NewWriter(&out)
	case "bz2":
		cmd := exec.Command("bzip2", "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &out
		if err := cmd.Run(); err != nil {
			testenv.Lacks(t, "bzip2 lacks: %v", err)
		}
		return out.Bytes()
	default:
		return b
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// into is a folder with something beside it that must stay as it is.
type into struct {
	dir     string
	root    *os.Root
	outside string
}

func folder(t testing.TB) into {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "in", "side")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(base, "outside")
	if err := os.WriteFile(outside, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return into{dir, root, outside}
}

// untouched fails if anything but the folder's inside has changed.
func (f into) untouched(t testing.TB) {
	t.Helper()
	if b, err := os.ReadFile(f.outside); err != nil || string(b) != "untouched" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	base := filepath.Dir(f.outside)
	for dir, want := range map[string]int{base: 2, filepath.Join(base, "in"): 1} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("%d entries in %s, want %d (%v)", len(entries), dir, want, err)
		}
	}
}

func extract(t testing.TB, f into, name string, b []byte, l Limits) (Stats, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	return Extract(t.Context(), in, name, f.root, Options{Limits: l})
}

// list is what is in a folder: its files with their content, links with their target.
func list(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what += " " + string(b)
		case info.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			what = "-> " + to
		}
		found[rel] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var plainItems = []item{
	{name: "./", kind: tar.TypeDir, mode: 0o755},
	{name: "a/", kind: tar.TypeDir, mode: 0o555},
	{name: "a/run.sh", body: "#!/bin/sh\n", mode: 0o4755},
	{name: "b/c/deep", body: "deep"},
	{name: "b/up", kind: tar.TypeSymlink, link: "../a/run.sh"},
	{name: "b/same", kind: tar.TypeSymlink, link: "c/../../a"},
	{name: "dangling", kind: tar.TypeSymlink, link: "not/yet"},
	{name: "empty"},
}

func TestEveryFormatGivesTheSameFiles(t *testing.T) {
	want := map[string]string{
		"a": "drwxr-xr-x", "a/run.sh": "-rwxr-xr-x #!/bin/sh\n", "b": "drwxr-xr-x", "b/c": "drwxr-xr-x",
		"b/c/deep": "-rw-r--r-- deep", "b/up": "-> ../a/run.sh", "b/same": "-> c/../../a", "dangling": "-> not/yet",
		"empty": "-rw-r--r-- ",
	}
	plain := tarOf(t, plainItems...)
	for name, how := range map[string]string{
		"x.tar": "", "x.tgz": "gz", "x.tar.gz": "gz", "x.tbz2": "bz2", "x.tar.bz2": "bz2", "x.txz": "xz", "x.tar.xz": "xz",
		"x.tar.zst": "zst", "wrongly-named.tar": "gz", "x.zip": "zip",
	} {
		t.Run(name, func(t *testing.T) {
			b := zipOf(t, plainItems[1:]...)
			if how != "zip" {
				b = compress(t, how, plain)
			}
			f := folder(t)
			if _, err := extract(t, f, name, b, Limits{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, list(t, f.dir)); diff != "" {
				t.Errorf("unpacked (-want +got):\n%s", diff)
			}
			for _, name := range []string{"a", "a/run.sh", "empty"} {
				info, err := os.Stat(filepath.Join(f.dir, name))
				if err != nil || !info.ModTime().Equal(then) {
					t.Errorf("time of %s is %v, want %v (%v)", name, info.ModTime(), then, err)
				}
			}
		})
	}
}

func TestGzipAloneIsOneFile(t *testing.T) {
	f := folder(t)
	stats, err := extract(t, f, "data.json.gz", compress(t, "gz", []byte(`{"a":1}`)), Limits{})
	if err != nil || stats != (Stats{Entries: 1, Bytes: 7}) {
		t.Fatalf("stats %+v, %v", stats, err)
	}
	if diff := cmp.Diff(map[string]string{"data.json": `-rw-r--r-- {"a":1}`}, list(t, f.dir)); diff != "" {
		t.Error(diff)
	}
}

func TestSuffixesDecide(t *testing.T) {
	for name, want := range map[string]bool{
		"a.tar": true, "a.tgz": true, "a.tar.gz": true, "a.tbz2": true, "a.tar.bz2": true, "a.txz": true, "a.tar.xz": true,
		"a.zip": true, "a.gz": true, ".gz": false, "a.bz2": false, "a.jar": false, "a": false, "zip": false, "a.tar?x=1": false,
	} {
		if got := Recognised(name); got != want {
			t.Errorf("Recognised(%q) = %v, want %v", name, got, want)
		}
	}
	f := folder(t)
	if _, err := extract(t, f, "a.jar", nil, Limits{}); err == nil {
		t.Error("a jar was unpacked")
	}
}

func TestFilesAreMadeAnewNeverWrittenInto(t *testing.T) {
	f := folder(t)
	if err := os.Link(f.outside, filepath.Join(f.dir, "linked")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(f.outside, filepath.Join(f.dir, "pointing")); err != nil {
		t.Fatal(err)
	}
	b := tarOf(t, item{name: "linked", body: "new"}, item{name: "pointing", body: "new"}, item{name: "twice", body: "1"},
		item{name: "hard", kind: tar.TypeLink, link: "twice"}, item{name: "twice", body: "2"})
	if _, err := extract(t, f, "x.tar", b, Limits{}); err != nil {
		t.Fatal(err)
	}
	f.untouched(t)
	want := map[string]string{
		"linked": "-rw-r--r-- new", "pointing": "-rw-r--r-- new", "twice": "-rw-r--r-- 2", "hard": "-rw-r--r-- 1",
	}
	if diff := cmp.Diff(want, list(t, f.dir)); diff != "" {
		t.Error(diff)
	}
}

// attacks are archives that nothing good can be meant by. Each is tried as tar, and as zip where that can say it.
var attacks = map[string][]item{
	"name that leaves":             {{name: "../outside", body: "x"}},
	"name that leaves deep down":   {{name: "a/b/../../../outside", body: "x"}},
	"name that comes back":         {{name: "a/../b", body: "x"}},
	"absolute name":                {{name: "/etc/passwd", body: "x"}},
	"link that leaves":             {{name: "l", kind: tar.TypeSymlink, link: "../../outside"}},
	"absolute link":                {{name: "l", kind: tar.TypeSymlink, link: "/etc"}},
	"link that leaves by one more": {{name: "a/l", kind: tar.TypeSymlink, link: "../.."}},
	"write through a link":         {{name: "l", kind: tar.TypeSymlink, link: "d"}, {name: "l/x", body: "x"}},
	"link dance": {
		{name: "here", kind: tar.TypeSymlink, link: "."},
		{name: "up", kind: tar.TypeSymlink, link: "here/../../outside"},
	},
	"link dance, the link made first": {
		{name: "up", kind: tar.TypeSymlink, link: "here/../x"},
		{name: "here", kind: tar.TypeSymlink, link: "."},
	},
	"folder that becomes a link": {
		{name: "d/", kind: tar.TypeDir, mode: 0o755},
		{name: "d", kind: tar.TypeSymlink, link: "e"},
		{name: "d/x", body: "x"},
	},
	"link that becomes a folder": {
		{name: "d", kind: tar.TypeSymlink, link: "e"}, {name: "d/", kind: tar.TypeDir, mode: 0o755}, {name: "d/x", body: "x"},
	},
	"file that becomes a folder":   {{name: "d", body: "x"}, {name: "d/x", body: "x"}},
	"name too long":                {{name: strings.Repeat("n", 300), body: "x"}},
	"path too deep":                {{name: strings.Repeat("d/", 200) + "x", body: "x"}},
	"device":                       {{name: "dev", kind: tar.TypeChar, major: 1, minor: 3}},
	"the folder itself as a link":  {{name: ".", kind: tar.TypeSymlink, link: "x"}},
	"link without target":          {{name: "l", kind: tar.TypeSymlink, link: "", body: ""}},
	"pipe":                         {{name: "p", kind: tar.TypeFifo}},
	"hard link to outside":         {{name: "h", kind: tar.TypeLink, link: "../../outside"}},
	"hard link to an absolute":     {{name: "h", kind: tar.TypeLink, link: "/etc/passwd"}},
	"hard link to nothing":         {{name: "h", kind: tar.TypeLink, link: "lacks"}},
	"hard link to nothing in none": {{name: "h", kind: tar.TypeLink, link: "lacks/x"}},
	"hard link to a link":          {{name: "l", kind: tar.TypeSymlink, link: "x"}, {name: "h", kind: tar.TypeLink, link: "l"}},
	"hard link through a link": {
		{name: "d/f", body: "x"}, {name: "l", kind: tar.TypeSymlink, link: "d"}, {name: "h", kind: tar.TypeLink, link: "l/f"},
	},
}

func TestAttacksAreRefused(t *testing.T) {
	for what, items := range attacks {
		last := items[len(items)-1]
		t.Run(what, func(t *testing.T) {
			for _, form := range []string{"tar", "zip"} {
				if form == "zip" && (last.kind == tar.TypeLink || last.kind == tar.TypeFifo) {
					continue
				}
				b := tarOf(t, items...)
				if form == "zip" {
					b = zipOf(t, items...)
				}
				f := folder(t)
				_, err := extract(t, f, "x."+form, b, Limits{})
				if err == nil {
					t.Fatalf("%s was unpacked: %v", form, list(t, f.dir))
				}
				if !strings.Contains(err.Error(), "entry ") || strings.Contains(err.Error(), f.dir) {
					t.Errorf("%s: the error does not name the entry alone: %v", form, err)
				}
				if !errors.Is(err, ErrUnsafe) && !errors.Is(err, ErrLimit) && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: the error is of no kind: %v", form, err)
				}
				f.untouched(t)
			}
		})
	}
}

func TestLinksOfTheSandboxAreNotFollowed(t *testing.T) {
	f := folder(t)
	if err := os.Symlink(filepath.Dir(f.outside), filepath.Join(f.dir, "volume")); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"x.tar": tarOf(t, item{name: "volume/outside", body: "x"}), "x.zip": zipOf(t, item{name: "volume/new", body: "x"}),
		"y.tar": tarOf(t, item{name: "volume/", kind: tar.TypeDir, mode: 0o700}),
	} {
		if _, err := extract(t, f, name, b, Limits{}); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.untouched(t)
}

func TestBombsEndAtTheirLimits(t *testing.T) {
	zeros := strings.Repeat("\x00", 1<<20)
	var big []item
	for range 65 {
		big = append(big, item{name: "zeros", body: zeros})
	}
	many := make([]item, 1001)
	for i := range many {
		many[i] = item{name: "f" + strings.Repeat("i", i%100), body: ""}
	}
	for what, c := range map[string]struct {
		name   string
		b      []byte
		limits Limits
	}{
		"ratio of a tar":       {"x.tgz", compress(t, "gz", tarOf(t, big...)), Limits{}},
		"ratio of a zip":       {"x.zip", zipOf(t, big...), Limits{}},
		"ratio of a gzip":      {"x.gz", compress(t, "gz", bytes.Repeat([]byte{0}, 65<<20)), Limits{}},
		"bytes of a tar":       {"x.tar", tarOf(t, big[:2]...), Limits{Bytes: 1<<20 + 1}},
		"bytes of a zip":       {"x.zip", zipOf(t, big[:2]...), Limits{Bytes: 1<<20 + 1}},
		"bytes of a gzip":      {"x.gz", compress(t, "gz", []byte(zeros)), Limits{Bytes: 1000}},
		"entries of a tar":     {"x.tar", tarOf(t, many...), Limits{Entries: 1000}},
		"entries of a zip":     {"x.zip", zipOf(t, many...), Limits{Entries: 1000}},
		"index of a zip":       {"x.zip", zipOf(t, manyLong(6000)...), Limits{Entries: 1}},
		"what is only skipped": {"x.tar", compress(t, "gz", skipped(t)), Limits{Bytes: 1000}},
		"a sparse lie":         {"x.tar", sparseLie(t), Limits{Bytes: 1 << 30}},
	} {
		t.Run(what, func(t *testing.T) {
			f := folder(t)
			stats, err := extract(t, f, c.name, c.b, c.limits)
			if !errors.Is(err, ErrLimit) {
				t.Fatalf("%+v, %v; want ErrLimit", stats, err)
			}
		})
	}
}

func manyLong(n int) []item {
	items := make([]item, n)
	for i := range items {
		items[i] = item{name: strings.Repeat("n", 200)}
	}
	return items
}

// skipped is an archive whose first entry is of a kind that has no content and brings much of it.
func skipped(t *testing.T) []byte {
	b := tarOf(t, item{name: "a", body: strings.Repeat("\x00", 8<<20)})
	b[156] = '7' // a contiguous file is a file; its size is judged before its content
	sum := 0
	copy(b[148:156], "        ")
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	return b
}

// sparseLie says that its file has 8 TiB, of which nothing is there. The writer of the standard library makes none such, so
// the records are put where it has put others.
func sparseLie(t *testing.T) []byte {
	b := tarOf(t, item{
		name: "sparse", pax: map[string]string{"XXX.sparse.major": "1", "XXX.sparse.minor": "0", "XXX.sparse.realsize": "8796093022208"},
		body: "1\n8796093022208\n0\n" + strings.Repeat("\x00", 494),
	})
	lie := bytes.ReplaceAll(b, []byte("XXX.sparse"), []byte("GNU.sparse"))
	if bytes.Equal(b, lie) {
		t.Fatal("the archive has no place for the lie")
	}
	return lie
}

func TestTruncatedAndWrongBytesAreErrors(t *testing.T) {
	whole := tarOf(t, item{name: "a", body: strings.Repeat("body", 1000)}, item{name: "b", body: "b"})
	for name, b := range map[string][]byte{
		"cut.tar": whole[:1000], "cut.tgz": compress(t, "gz", whole)[:60], "cut.tar.xz": compress(t, "xz", whole)[:60],
		"page.tar": []byte("<html>" + strings.Repeat("not found ", 100) + "</html>"), "page.zip": []byte("<html></html>"),
		"page.gz": []byte("<html></html>"), "cut.zip": zipOf(t, item{name: "a", body: "a"})[:50],
	} {
		f := folder(t)
		if _, err := extract(t, f, name, b, Limits{}); err == nil {
			t.Errorf("%s was unpacked: %v", name, list(t, f.dir))
		}
	}
}

func TestContextEndsTheWork(t *testing.T) {
	f := folder(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no more"))
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(file, tarOf(t, plainItems...), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := Extract(ctx, in, "x.tar", f.root, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("unpacking under an ended context: %v", err)
	}
}

func TestOwnerIsGiven(t *testing.T) {
	testenv.NeedRoot(t, "to give files away")
	f := folder(t)
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(file, tarOf(t, plainItems...), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := Extract(t.Context(), in, "x.tar", f.root, Options{Owner: &Owner{1234, 2345}}); err != nil {
		t.Fatal(err)
	}
	for name := range list(t, f.dir) {
		uid, gid := ownerOf(t, filepath.Join(f.dir, name))
		if uid != 1234 || gid != 2345 {
			t.Errorf("%s belongs to %d:%d, want 1234:2345", name, uid, gid)
		}
	}
}

// Whatever the bytes are: nothing outside changes, and the work ends.
func FuzzExtract(f *testing.F) {
	for _, items := range attacks {
		f.Add("x.tar", tarOf(f, items...))
		f.Add("x.zip", zipOf(f, items...))
	}
	f.Add("x.tgz", compress(f, "gz", tarOf(f, plainItems...)))
	f.Add("x.tar.xz", compress(f, "xz", tarOf(f, plainItems...)))
	f.Add("x.tar.zst", compress(f, "zst", tarOf(f, plainItems...)))
	f.Add("x.gz", compress(f, "gz", []byte("x")))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if !Recognised(filepath.Base(name)) || strings.ContainsRune(name, 0) {
			return
		}
		in := folder(t)
		_, _ = extract(t, in, name, b, Limits{Bytes: 4 << 20, Entries: 100, Depth: 16})
		in.untouched(t)
		// Every link leads to within: os.Root says so of each that leads anywhere.
		for p, what := range list(t, in.dir) {
			if !strings.HasPrefix(what, "-> ") {
				continue
			}
			if _, err := in.root.Stat(p); err != nil && !errors.Is(err, fs.ErrNotExist) && strings.Contains(err.Error(), "escapes") {
				t.Errorf("link %q %s leaves", p, what)
			}
		}
	})
}
