package libct

import (
	"fmt"
	"os"
	"path/filepath"

	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"
)

// defaultNodes are the devices that every container has.
var defaultNodes = []struct {
	name         string
	major, minor int64
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// deviceRules returns the devices to make in a container and the rules of what may be used: nothing by default, nodes may be
// made, terminals are those of the container. extra are paths of devices of the node.
func deviceRules(extra []string) (nodes []*devices.Device, rules []*devices.Rule, err error) {
	char := func(major, minor int64, permissions devices.Permissions) *devices.Rule {
		return &devices.Rule{Type: devices.CharDevice, Major: major, Minor: minor, Permissions: permissions, Allow: true}
	}
	const any = devices.Wildcard
	rules = []*devices.Rule{
		{Type: devices.WildcardDevice, Major: any, Minor: any, Permissions: "rwm"},
		char(any, any, "m"),
		{Type: devices.BlockDevice, Major: any, Minor: any, Permissions: "m", Allow: true},
		char(136, any, "rwm"), // /dev/pts
		char(5, 2, "rwm"),     // /dev/ptmx
	}
	for _, d := range defaultNodes {
		rule := char(d.major, d.minor, "rwm")
		rules = append(rules, rule)
		nodes = append(nodes, &devices.Device{Rule: *rule, Path: "/dev/" + d.name, FileMode: 0o666})
	}
	for _, path := range extra {
		node, err := nodeDevice(path)
		if err != nil {
			return nil, nil, err
		}
		nodes, rules = append(nodes, node), append(rules, &node.Rule)
	}
	return nodes, rules, nil
}

// nodeDevice describes a device of the node.
func nodeDevice(path string) (*devices.Device, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("cannot find device %q: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return nil, fmt.Errorf("cannot look at device %q: %w", path, err)
	}
	kind := devices.CharDevice
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
	case unix.S_IFBLK:
		kind = devices.BlockDevice
	default:
		return nil, fmt.Errorf("%q is not a device", path)
	}
	return &devices.Device{
		Rule: devices.Rule{
			Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), Permissions: "rwm", Allow: true,
		},
		Path: filepath.Clean(path), FileMode: os.FileMode(st.Mode & 0o777), Uid: st.Uid, Gid: st.Gid,
	}, nil
}
