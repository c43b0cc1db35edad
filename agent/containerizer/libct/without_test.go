//go:build linux && !cgo

package libct

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process"
	"starling/master/mesos"
)

// Without cgo there are plain processes, and clear words for the rest.
func TestBuiltWithoutCgo(t *testing.T) {
	dir := t.TempDir()
	p, err := process.New(process.Config{Dir: filepath.Join(dir, "sv"), Supervisor: []string{"/bin/false"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Dir: filepath.Join(dir, "ct"), Launcher: []string{"/bin/false"}}, p)
	if err != nil {
		t.Fatal(err)
	}
	info := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Hostname: proto.String("x")}
	if err := c.Usable(info); !errors.Is(err, containerizer.ErrUnsupported) || !strings.Contains(err.Error(), "this binary was built without cgo") {
		t.Errorf("got %v", err)
	}
	if err := c.Usable(&mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}); err != nil {
		t.Errorf("a plain process: %v", err)
	}
	if code := Main([]string{"run", dir}); code == 0 {
		t.Error("a launcher without cgo has done something")
	}
}
