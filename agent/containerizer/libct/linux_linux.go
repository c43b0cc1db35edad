package libct

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"starling/master/mesos"
)

// defaultCapabilities are those of the Docker engine without NET_RAW, and without MKNOD: a device that a container makes in
// its sandbox or in a volume is one on the node too, where nothing keeps it from being used.
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// maskedPaths and readonlyPaths are those of the Docker engine.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// capabilities makes the sets of capabilities, or tells all that is wrong with what was asked for. keep passes the asked
// ones on to a user other than root, as the first process loses them otherwise.
func capabilities(info *mesos.LinuxInfo, forbid bool, keep bool) (*configs.Capabilities, []string) {
	effective, bounding := info.GetEffectiveCapabilities(), info.GetBoundingCapabilities()
	if effective == nil {
		effective = info.GetCapabilityInfo()
	}
	var faults []string
	names := func(info *mesos.CapabilityInfo) []string {
		var list []string
		for _, c := range info.GetCapabilities() {
			if c == mesos.CapabilityInfo_UNKNOWN {
				faults = append(faults, "an unknown capability is asked for")
				continue
			}
			list = append(list, "CAP_"+c.String())
		}
		return list
	}
	bound, eff := defaultCapabilities, defaultCapabilities
	switch {
	case effective != nil && bounding != nil:
		bound, eff = names(bounding), names(effective)
		if extra := without(eff, bound); len(extra) > 0 {
			faults = append(faults, fmt.Sprintf("effective capabilities %s are not among the bounding ones", strings.Join(extra, ", ")))
		}
	case effective != nil:
		eff = names(effective)
		bound = eff
	case bounding != nil:
		bound = names(bounding)
		eff = slices.DeleteFunc(slices.Clone(defaultCapabilities), func(c string) bool { return !slices.Contains(bound, c) })
	}
	if extra := without(bound, defaultCapabilities); forbid && len(extra) > 0 {
		faults = append(faults, fmt.Sprintf("capabilities %s are not allowed on this agent", strings.Join(extra, ", ")))
	}
	caps := &configs.Capabilities{Bounding: bound, Effective: eff, Permitted: eff}
	if keep && effective != nil {
		caps.Inheritable, caps.Ambient = eff, eff
	}
	return caps, faults
}

// without returns what of list is not in other.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(v string) bool { return slices.Contains(other, v) })
}

// rlimitTypes are the numbers of the kernel. RLIMIT_* of package unix lack a few.
var rlimitTypes = map[mesos.RLimitInfo_RLimit_Type]int{
	mesos.RLimitInfo_RLimit_RLMT_CPU: 0, mesos.RLimitInfo_RLimit_RLMT_FSIZE: 1, mesos.RLimitInfo_RLimit_RLMT_DATA: 2,
	mesos.RLimitInfo_RLimit_RLMT_STACK: 3, mesos.RLimitInfo_RLimit_RLMT_CORE: 4, mesos.RLimitInfo_RLimit_RLMT_RSS: 5,
	mesos.RLimitInfo_RLimit_RLMT_NPROC: 6, mesos.RLimitInfo_RLimit_RLMT_NOFILE: 7, mesos.RLimitInfo_RLimit_RLMT_MEMLOCK: 8,
	mesos.RLimitInfo_RLimit_RLMT_AS: 9, mesos.RLimitInfo_RLimit_RLMT_LOCKS: 10, mesos.RLimitInfo_RLimit_RLMT_SIGPENDING: 11,
	mesos.RLimitInfo_RLimit_RLMT_MSGQUEUE: 12, mesos.RLimitInfo_RLimit_RLMT_NICE: 13, mesos.RLimitInfo_RLimit_RLMT_RTPRIO: 14,
	mesos.RLimitInfo_RLimit_RLMT_RTTIME: 15,
}

// rlimits makes the resource limits, or tells all that is wrong with them.
func rlimits(info *mesos.RLimitInfo) (list []configs.Rlimit, faults []string) {
	for _, l := range info.GetRlimits() {
		kind, ok := rlimitTypes[l.GetType()]
		name := l.GetType().String()
		switch {
		case !ok:
			faults = append(faults, "an unknown resource limit is asked for")
		case slices.ContainsFunc(list, func(have configs.Rlimit) bool { return have.Type == kind }):
			faults = append(faults, fmt.Sprintf("resource limit %s is given twice", name))
		case (l.Hard == nil) != (l.Soft == nil):
			faults = append(faults, fmt.Sprintf("resource limit %s has but one of soft and hard", name))
		case l.GetSoft() > l.GetHard():
			faults = append(faults, fmt.Sprintf("resource limit %s has a soft limit of %d above the hard one of %d", name, l.GetSoft(), l.GetHard()))
		case l.Hard == nil:
			list = append(list, configs.Rlimit{Type: kind, Hard: unix.RLIM_INFINITY, Soft: unix.RLIM_INFINITY})
		default:
			list = append(list, configs.Rlimit{Type: kind, Hard: l.GetHard(), Soft: l.GetSoft()})
		}
	}
	return list, faults
}
