//go:build linux && cgo

package libct

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

func TestImageSaysWhatToRun(t *testing.T) {
	n := newNode(t)
	images := n.withBusybox()
	c, x := n.begin()
	command := func(shell bool, value string, args ...string) *mesos.CommandInfo {
		cmd := &mesos.CommandInfo{Shell: &shell, Arguments: args}
		if value != "" {
			cmd.Value = &value
		}
		return cmd
	}
	images.image.Cmd = []string{"echo", "from", "cmd"}
	for i, tt := range []struct {
		entrypoint []string
		cmd        *mesos.CommandInfo
		want       string
	}{
		{nil, nil, "from cmd"},
		{nil, command(false, "", "given"), "given"},
		{nil, command(true, "echo $FROM $MINE"), "image task"},
		{nil, command(false, "/bin/echo", "echo", "$FROM"), "$FROM"},
		{nil, command(false, "/bin/busybox", "echo", "by", "name"), "by name"},
		{nil, command(false, "busybox", "echo", "by", "name"), "by name"},
		{[]string{"/bin/echo", "entry"}, nil, "entry echo from cmd"},
		{[]string{"/bin/echo", "entry"}, command(false, "", "a", "b"), "entry a b"},
	} {
		images.image.Entrypoint = tt.entrypoint
		spec := n.shell(fmt.Sprintf("i%d", i), "")
		spec.Path, spec.Args, spec.Env = "", nil, []string{"MINE=task"}
		spec.Command, spec.Container.Mesos = tt.cmd, busyboxImage()
		if out, e := n.run(c, x, spec); out != tt.want || e.Status != 0 {
			t.Errorf("%v with entry point %v: got %q, %+v, want %q", tt.cmd, tt.entrypoint, out, e, tt.want)
		}
	}
	images.image.WorkingDir, images.image.User = "/etc", "web"
	spec := n.shell("w", "pwd; id -u; echo changed >/tmp/x 2>/dev/null; cat /etc/motd; [ -w /bin ] || echo ro")
	spec.Container.Mesos = busyboxImage()
	if out, _ := n.run(c, x, spec); out != "/etc\n4321\ntop\nro" {
		t.Errorf("got %q", out)
	}
}

// A program is told the name that the command has for it, where a search for the name leads to the program.
func TestProgramIsToldItsName(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, x := n.begin()
	for i, tt := range []struct {
		image      bool
		path, name string
		want       string
	}{
		{false, "/bin/sh", "sh", "sh"},
		{false, "sh", "sh", "sh"},
		{false, "/bin/sh", "my-shell", "/bin/sh"},
		{false, "/bin/sh", "../bin/sh", "/bin/sh"},
		{false, "/bin/sh", "sleep", "/bin/sh"},
		{false, "/bin/sh", "", "/bin/sh"},
		{true, "/bin/sh", "sh", "sh"},
		{true, "/bin/sh", "my-shell", "/bin/sh"},
	} {
		spec := n.shell(fmt.Sprintf("a%d", i), "")
		args := []string{tt.name, "-c", `tr '\0' '|' </proc/$$/cmdline; :`}
		spec.Path, spec.Args = tt.path, args
		spec.Command = &mesos.CommandInfo{Shell: proto.Bool(false), Value: &tt.path, Arguments: args}
		if tt.image {
			spec.Container.Mesos = busyboxImage()
		}
		out, e := n.run(c, x, spec)
		if got, _, _ := strings.Cut(out, "|"); got != tt.want || e.Status != 0 {
			t.Errorf("%+v: got %q, %+v, %s", tt, out, e, n.errOutput(spec.ID))
		}
	}
}

// What the kernel can't run fails the launch, and leaves nothing.
func TestBadProgramsFailTheLaunch(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, _ := n.begin()
	for name, text := range map[string]string{"script": "#!/no/such/interpreter\n", "garbage": "\x01\x02\x03", "empty": ""} {
		for _, image := range []bool{false, true} {
			id := fmt.Sprintf("%s-%v", name, image)
			spec := n.shell(id, "")
			file := filepath.Join(spec.Dir, "program")
			if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			if image {
				spec.Container.Mesos, file = busyboxImage(), DefaultSandboxDirectory+"/program"
			}
			spec.Path, spec.Args = file, []string{file}
			spec.Command = &mesos.CommandInfo{Shell: proto.Bool(false), Value: &file}
			if _, err := c.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("cannot run %q", file)) {
				t.Errorf("%s: got %v", id, err)
			}
			if _, ok := c.process.PID(id); ok {
				t.Errorf("%s is there", id)
			}
		}
	}
	waitFor(t, "folders to go", func() bool { e, _ := os.ReadDir(n.cfg.Dir); return len(e) == 0 })
}

// An image without layers holds no program; a volume may.
func TestImageWithoutLayers(t *testing.T) {
	n := newNode(t)
	n.withBusybox().layers = nil
	c, x := n.begin()
	spec := n.shell("empty", "true")
	spec.Container.Mesos = busyboxImage()
	if _, err := c.Launch(t.Context(), spec); err == nil || !strings.Contains(err.Error(), `cannot run "/bin/sh": no such file or directory`) {
		t.Errorf("got %v", err)
	}
	spec = n.shell("brought", "")
	spec.Container.Mesos = busyboxImage()
	if out, err := exec.Command("cp", "/bin/busybox", filepath.Join(spec.Dir, "busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program := DefaultSandboxDirectory + "/busybox"
	spec.Command = &mesos.CommandInfo{Shell: proto.Bool(false), Value: &program, Arguments: []string{program, "echo", "alone"}}
	if out, e := n.run(c, x, spec); out != "alone" || e.Status != 0 {
		t.Errorf("got %q, %+v, %s", out, e, n.errOutput("brought"))
	}
}

// A pipe in the place of the list of users is not waited for.
func TestUsersAreReadFromFilesAlone(t *testing.T) {
	n := newNode(t)
	images := n.withBusybox()
	if err := os.Remove(filepath.Join(images.layers[0], "etc", "passwd")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(images.layers[0], "etc", "passwd"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, x := n.begin()
	spec := n.shell("pipe", "echo up")
	spec.Container.Mesos = busyboxImage()
	// Without, libcontainer looks into the list itself, in the container.
	spec.Env = append(spec.Env, "HOME=/")
	if out, _ := n.run(c, x, spec); out != "up" {
		t.Errorf("got %q", out)
	}
}

// TestRootIsInAnyImage runs an image without files of users, as those are that are but a program, as Marathon asks for it.
func TestRootIsInAnyImage(t *testing.T) {
	n := newNode(t)
	images := n.withBusybox()
	for _, name := range []string{"passwd", "group"} {
		if err := os.Remove(filepath.Join(images.layers[0], "etc", name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	c, x := n.begin()
	spec := n.shell("root", "id -u; id -g")
	spec.Container.Mesos, spec.User = busyboxImage(), "root"
	if out, _ := n.run(c, x, spec); out != "0\n0" {
		t.Errorf("got %q", out)
	}
}
