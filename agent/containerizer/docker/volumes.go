package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// volumes puts the volumes that were asked for into the plan.
func (c *Containerizer) volumes(p *plan, spec *containerizer.Spec) error {
	driver := spec.Container.GetDocker().GetVolumeDriver()
	p.VolumeDriver = driver
	for i, v := range spec.Container.GetVolumes() {
		if err := c.volume(p, spec.Dir, driver, v); err != nil {
			return fmt.Errorf("volume %d (%s): %w", i, v.GetContainerPath(), err)
		}
	}
	return nil
}

// inside is a path in the container; a relative one is within the sandbox.
func (c *Containerizer) inside(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(c.cfg.SandboxDirectory, p)
}

// bind adds a volume to a list.
func bind(list *[]string, source, target, mode string) error {
	for _, s := range []string{source, target} {
		if strings.ContainsAny(s, ":\x00") {
			return fmt.Errorf("path %q contains a colon", s)
		}
	}
	*list = append(*list, source+":"+target+":"+mode)
	return nil
}

func (c *Containerizer) volume(p *plan, sandbox, driver string, v *mesos.Volume) error {
	if v.GetContainerPath() == "" {
		return errors.New("it names no path in the container")
	}
	if v.GetImage() != nil {
		return errors.New("images as volumes are not supported by Docker")
	}
	mode := "rw"
	if v.GetMode() == mesos.Volume_RO {
		mode = "ro"
	}
	target, source := c.inside(v.GetContainerPath()), v.GetHostPath()
	if src := v.GetSource(); src != nil {
		if v.HostPath != nil {
			return errors.New("it has both a host path and a source")
		}
		switch src.GetType() {
		case mesos.Volume_Source_DOCKER_VOLUME:
			d := src.GetDockerVolume()
			m := namedVolume{Name: d.GetName(), Target: target, Driver: d.GetDriver(), ReadOnly: mode == "ro"}
			for _, o := range d.GetDriverOptions().GetParameter() {
				if m.Options == nil {
					m.Options = map[string]string{}
				}
				m.Options[o.GetKey()] = o.GetValue()
			}
			if m.Driver == "" {
				m.Driver = driver
			}
			if m.Name == "" {
				return errors.New("it names no volume of Docker")
			}
			p.Mounts = append(p.Mounts, m)
			return nil
		case mesos.Volume_Source_HOST_PATH:
			source = src.GetHostPath().GetPath()
			switch src.GetHostPath().GetMountPropagation().GetMode() {
			case mesos.MountPropagation_HOST_TO_CONTAINER:
				mode += ",rslave"
			case mesos.MountPropagation_BIDIRECTIONAL:
				mode += ",rshared"
			}
		case mesos.Volume_Source_SANDBOX_PATH:
			s := src.GetSandboxPath()
			if s.GetType() != mesos.Volume_Source_SandboxPath_SELF {
				return errors.New("only paths in the sandbox of the container itself are supported by Docker")
			}
			if path.IsAbs(s.GetPath()) {
				return fmt.Errorf("sandbox path %q is absolute", s.GetPath())
			}
			source = s.GetPath()
			driver = ""
		default:
			return fmt.Errorf("volumes of type %v are not supported by Docker", src.GetType())
		}
	}
	switch {
	case source == "":
		// As `docker run -v PATH`: an empty volume that goes with the container.
		p.Volumes = append(p.Volumes, target)
		return nil
	case path.IsAbs(source):
		source = path.Clean(source)
	case driver != "":
		// A name that the volume driver knows.
	default:
		folder, err := within(sandbox, source)
		if err != nil {
			return err
		}
		return bind(&p.sandbox, folder, target, mode)
	}
	return bind(&p.Binds, source, target, mode)
}

// within returns a path in the sandbox, which becomes a folder if nothing is there. What links lead to must be in the
// sandbox too: its content is the task's own.
func within(sandbox, name string) (string, error) {
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return "", err
	}
	defer root.Close()
	name = filepath.Clean(name)
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("host path %q leads out of the sandbox", name)
	}
	_, err = root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = makeFolder(root, name)
	}
	if err != nil {
		return "", fmt.Errorf("cannot use %q of the sandbox: %w", name, err)
	}
	real, err := filepath.EvalSymlinks(filepath.Join(sandbox, name))
	if err != nil {
		return "", err
	}
	if top, err := filepath.EvalSymlinks(sandbox); err != nil || real != top && !strings.HasPrefix(real, top+"/") {
		return "", fmt.Errorf("host path %q leads out of the sandbox", name)
	}
	return real, nil
}

// makeFolder makes a folder, and those above it, for the owner of the sandbox.
func makeFolder(root *os.Root, name string) error {
	top, err := root.Stat(".")
	if err != nil {
		return err
	}
	at := ""
	for part := range strings.SplitSeq(name, "/") {
		at = path.Join(at, part)
		if err := root.Mkdir(at, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if st, ok := top.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			if err := root.Chown(at, int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}
