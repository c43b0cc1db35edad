package docker

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"starling/agent/supervisor"
)

// hold opens a handle on the first process of a container: the number that the engine gives, if a process of that number
// is in the container's cgroup. An engine on another machine, or in another pid namespace, gives numbers of its own.
func hold(pid int, engineID string) (h *supervisor.Handle, ticks uint64) {
	if pid <= 0 || engineID == "" {
		return nil, 0
	}
	ticks = startTicks(pid)
	if ticks == 0 || !belongs(pid, engineID) {
		return nil, 0
	}
	return holdAgain(pid, ticks), ticks
}

// holdAgain opens a handle on a process that was held before.
func holdAgain(pid int, ticks uint64) *supervisor.Handle {
	if pid <= 0 || ticks == 0 {
		return nil
	}
	h, err := supervisor.OpenHandle(pid, ticks)
	if err != nil {
		return nil
	}
	return h
}

// belongs tells whether a process is in a cgroup that is named after a container.
func belongs(pid int, engineID string) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && bytes.Contains(data, []byte(engineID))
}

// startTicks is when a process started, in the unit of proc(5); 0 if there is none.
func startTicks(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	// fields[0] is the third of proc(5), the start is the 22nd.
	if len(fields) < 20 {
		return 0
	}
	ticks, _ := strconv.ParseUint(fields[19], 10, 64)
	return ticks
}
