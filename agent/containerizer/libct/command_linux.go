package libct

import (
	"errors"
	"slices"
	"strings"

	"starling/agent/containerizer"
	"starling/agent/image"
)

// imageArgs says what a container with an image runs, as Mesos' isolator docker/runtime has it: a shell command replaces
// all that the image says; a value with its arguments, too, and these begin with the name that the program is told;
// arguments alone are those of the image's entry point, and take the place of its command.
func imageArgs(spec *containerizer.Spec, img *image.Image) (path string, args []string, err error) {
	given := spec.Command.GetArguments()
	value := spec.Command.GetValue()
	switch {
	case value != "" && spec.Command.GetShell():
		return "/bin/sh", []string{"sh", "-c", value}, nil
	case value != "" && len(given) > 0:
		return value, given, nil
	case value != "":
		return value, []string{value}, nil
	case len(img.Entrypoint) > 0 && len(given) > 0:
		args = slices.Concat(img.Entrypoint, given)
	case len(img.Entrypoint) > 0:
		args = slices.Concat(img.Entrypoint, img.Cmd)
	case len(img.Cmd) > 0 && len(given) > 0:
		args = slices.Concat(img.Cmd[:1], given)
	case len(img.Cmd) > 0:
		args = img.Cmd
	case len(given) > 0:
		args = given
	default:
		return "", nil, errors.New("neither the task nor its image says what to run")
	}
	return args[0], args, nil
}

// defaultPath is the PATH where nobody sets one.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// mergeEnv puts environments over each other, later ones win, and adds a PATH where none is set.
func mergeEnv(layers ...[]string) []string {
	var env []string
	at := make(map[string]int)
	for _, layer := range layers {
		for _, v := range layer {
			name, _, _ := strings.Cut(v, "=")
			if i, ok := at[name]; ok {
				env[i] = v
				continue
			}
			at[name] = len(env)
			env = append(env, v)
		}
	}
	if _, ok := at["PATH"]; !ok {
		env = append(env, "PATH="+defaultPath)
	}
	return env
}
