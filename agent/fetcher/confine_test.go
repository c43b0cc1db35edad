package fetcher

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"starling/agent/testenv"
	"starling/master/mesos"
)

// The child has no other life than that of the agent.
func TestTheChildEndsWithTheAgent(t *testing.T) {
	s := serve(t, nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "child")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(in, `{"Sandbox":%q,"Items":[{"URI":%q,"Target":"x"}],"Stall":60000000000}`+"\n", box(t), s.URL+"/hang")
	until(t, func() bool { return s.count("/hang") == 1 })
	in.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
}

// confined tries from within what a child may not do; the exit code says which it could.
func confined(sandbox, outside string) int {
	if err := confine(job{Sandbox: sandbox}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	if os.WriteFile(filepath.Join(sandbox, "in"), nil, 0o600) != nil {
		return 8
	}
	code := 0
	if os.WriteFile(filepath.Join(outside, "out"), nil, 0o600) == nil {
		code |= 1
	}
	if _, err := os.ReadFile(filepath.Join(outside, "secret")); err == nil {
		code |= 2
	}
	return code
}

func TestTheChildIsConfined(t *testing.T) {
	if _, _, errno := syscall.Syscall(444, 0, 0, 1); errno != 0 { // landlock_create_ruleset, for its version
		testenv.Lacks(t, "this kernel has no Landlock: %v", errno)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	put(t, filepath.Join(outside, "secret"), "secret", 0o644)
	if out, err := exec.Command(self, "confined", t.TempDir(), outside).CombinedOutput(); err != nil {
		t.Errorf("%v (1: it could write outside, 2: read) %s", err, out)
	}
}

func TestTheChildIsTheTasksUser(t *testing.T) {
	testenv.NeedRoot(t, "to become another user")
	// Above the sandbox nobody but root may go, as in a work directory that is root's.
	dir := box(t)
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for _, path := range []string{dir, dir + "/stdout", dir + "/stderr"} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	public, err := os.MkdirTemp("/tmp", "fetcher-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(public) })
	put(t, public+"/mine", "x", 0o600)
	put(t, public+"/all", "y", 0o644)
	if err := os.Chmod(public, 0o755); err != nil {
		t.Fatal(err)
	}
	s := serve(t, map[string]string{"/plain": "content", "/a.tgz": tarball(t, tar.Header{Name: "bin/tool", Typeflag: tar.TypeReg})})
	f := newFetcher(t, nil)
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, User: "nobody", URIs: []*mesos.CommandInfo_URI{
		uri(s.URL+"/plain", to("a/b")), uri(public + "/all"), uri(s.URL+"/plain", cached), uri(s.URL + "/a.tgz"),
	}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a/b", "all", "plain", "a.tgz", "bin/tool"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != nobody || st.Gid != nobody {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	err = f.Fetch(t.Context(), Request{Sandbox: dir, User: "nobody", URIs: []*mesos.CommandInfo_URI{uri(public + "/mine")}})
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a file that only root may read: %v", err)
	}
	// What root has downloaded is not handed to others, and the other way round.
	if err := f.Fetch(t.Context(), Request{Sandbox: box(t), URIs: []*mesos.CommandInfo_URI{uri(s.URL+"/plain", cached)}}); err != nil {
		t.Error(err)
	}
	if n := s.count("/plain"); n != 3 {
		t.Errorf("%d downloads, want 3: one without the cache, one for each user", n)
	}
}

// A sandbox is its user's, who may put links where files are to go: nothing outside is written.
func TestLinksInTheSandbox(t *testing.T) {
	s := serve(t, map[string]string{"/plain": "content"})
	outside := t.TempDir()
	put(t, outside+"/victim", "untouched", 0o644)
	dir := box(t)
	for name, target := range map[string]string{"plain": outside + "/victim", "sub": outside, ".fetching-plain": outside + "/victim"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(dir+"/stderr"), os.Symlink(outside+"/victim", dir+"/stderr")); err != nil {
		t.Fatal(err)
	}
	f := newFetcher(t, nil)
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(s.URL + "/plain")}}); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(dir + "/plain"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link was not replaced: %v %v", info, err)
	}
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(s.URL+"/plain", to("sub/x"))}}); err == nil {
		t.Error("a folder that is a link to elsewhere was taken")
	}
	if got := read(t, outside+"/victim"); got != "untouched" {
		t.Errorf("outside: %q", got)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// The sandbox of a nested container lies in one of a task, who may exchange what is above it; and an output with another name
// is somebody else's file.
func TestASandboxBehindALink(t *testing.T) {
	s := serve(t, map[string]string{"/plain": "content"})
	outside, top := box(t), t.TempDir()
	if err := errors.Join(os.Mkdir(outside+"/c", 0o755), os.Symlink(outside, top+"/containers")); err != nil {
		t.Fatal(err)
	}
	f := newFetcher(t, nil)
	if err := f.Fetch(t.Context(), Request{Sandbox: top + "/containers/c", URIs: []*mesos.CommandInfo_URI{uri(s.URL + "/plain")}}); err == nil {
		t.Error("fetched through a link")
	}
	if left, err := os.ReadDir(outside + "/c"); err != nil || len(left) != 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	dir := box(t)
	if err := errors.Join(os.Remove(dir+"/stderr"), os.Link(outside+"/stdout", dir+"/stderr")); err != nil {
		t.Fatal(err)
	}
	if err := f.Fetch(t.Context(), Request{Sandbox: dir, URIs: []*mesos.CommandInfo_URI{uri(s.URL + "/plain")}}); err != nil {
		t.Error(err)
	}
	if got := read(t, outside+"/stdout"); got != "" {
		t.Errorf("written to a file with another name: %q", got)
	}
}
