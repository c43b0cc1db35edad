//go:build linux && cgo

package libct

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"starling/agent/image"
	"starling/agent/testenv"
	"starling/master/mesos"
)

// cgroupName is that of the folder below which package process makes cgroups.
func cgroupName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "starling-" + hex.EncodeToString(sum[:4])
}

// markOf is what a supervisor puts in the environments of its containers.
func markOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:8])
}

// fakeImages has one image, in two layers.
type fakeImages struct {
	layers []string
	image  image.Image
	// pulling is called while an image is being pulled.
	pulling func()

	mu   sync.Mutex
	held []string
}

func busyboxImage() *mesos.ContainerInfo_MesosInfo {
	name := "busybox"
	return &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{
		Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: &name},
	}}
}

// withBusybox gives the node an image with the node's own busybox.
func (n *node) withBusybox() *fakeImages {
	n.t.Helper()
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		testenv.Lacks(n.t, "needs busybox-static")
	}
	low, top := filepath.Join(n.dir, "layer0"), filepath.Join(n.dir, "layer1")
	for _, dir := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "mnt"} {
		if err := os.MkdirAll(filepath.Join(low, dir), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", busybox, low+"/bin/busybox").CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	for _, applet := range []string{"sh", "sleep", "cat", "id", "ls", "grep", "mount", "touch", "pwd", "env", "ps", "echo", "stty", "kill", "hostname", "stat", "tty", "head", "tail", "dd", "tr", "readlink"} {
		if err := os.Symlink("busybox", filepath.Join(low, "bin", applet)); err != nil && !errors.Is(err, os.ErrExist) {
			n.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(top, "etc"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:4321:4322::/home/web:/bin/sh\n",
		"group":  "root:x:0:\nweb:x:4322:\nextra:x:4323:web\n", "motd": "top\n",
	} {
		if err := os.WriteFile(filepath.Join(top, "etc", name), []byte(text), 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
	f := &fakeImages{layers: layersIn(n.dir), image: image.Image{Env: []string{"PATH=/bin", "FROM=image"}}}
	n.cfg.Images = f
	return f
}

// layersIn are the layers that withBusybox has made.
func layersIn(dir string) []string {
	return []string{filepath.Join(dir, "layer1"), filepath.Join(dir, "layer0")}
}

func (f *fakeImages) Prepare(_ context.Context, container string, img *mesos.Image, _ string) (image.Prepared, error) {
	if img.GetDocker().GetName() != "busybox" {
		return image.Prepared{}, errors.New("cannot pull image: no such image")
	}
	if f.pulling != nil {
		f.pulling()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, container)
	return image.Prepared{Image: f.image, Layers: f.layers}, nil
}

func (f *fakeImages) Release(_ context.Context, container string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = slices.DeleteFunc(f.held, func(id string) bool { return id == container })
	return nil
}

func (f *fakeImages) Held(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.held), nil
}
