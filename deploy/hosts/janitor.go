package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// netnsPrefix begins the name of every namespace of ours: prefix, process id, its start time, number of the network, host.
const netnsPrefix = "starling-test-"

// janitorVariable makes this test binary the one that cleans up when the tests cannot: after a panic, a timeout, ctrl-C, kill -9.
const janitorVariable = "STARLING_TEST_JANITOR"

var startJanitor sync.Once

// janitor removes what earlier runs left that were killed together with their janitor, and starts one for this run. It
// notices the end of this process by the end of its input, and ends with it if there is nothing to do.
func janitor() {
	if err := removeNetworks(abandoned); err != nil {
		fmt.Fprintln(os.Stderr, "leftovers of an earlier run:", err)
	}
	if err := startJanitorProcess(); err != nil {
		fmt.Fprintln(os.Stderr, "no janitor:", err)
	}
}

func startJanitorProcess() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Plain descriptors: the writing end is closed by the end of this process, and by nothing before.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	r := os.NewFile(uintptr(pipe[0]), "pipe")
	defer r.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", janitorVariable, os.Getpid()))
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

// runJanitor is what the janitor does for a process. It does not return.
func runJanitor(pid string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	theirs := func(name string) bool { return strings.HasPrefix(name, netnsPrefix+pid+"-") }
	// The files of a process are closed a moment before it is gone.
	for end := time.Now().Add(time.Minute); len(networkNames(theirs)) > 0 && time.Now().Before(end); {
		_ = removeNetworks(abandoned)
		time.Sleep(100 * time.Millisecond)
	}
	os.Exit(0)
}

// networkNames lists the namespaces of ours that are chosen.
func networkNames(choose func(name string) bool) []string {
	entries, _ := os.ReadDir(netnsDir)
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), netnsPrefix) && choose(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// abandoned tells whether the process that made a namespace is gone; another one may have its number by now.
func abandoned(name string) bool {
	fields := strings.Split(strings.TrimPrefix(name, netnsPrefix), "-")
	if len(fields) < 3 {
		return false
	}
	pid, err := strconv.Atoi(fields[0])
	began, berr := strconv.ParseUint(fields[1], 10, 64)
	return err == nil && berr == nil && startTime(pid) != began
}

// startTime is when a process began, in clock ticks since the machine did; 0 if it is no more.
func startTime(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' {
		return 0
	}
	ticks, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return ticks
}

// removeNetworks ends the processes in the namespaces chosen, and removes them.
func removeNetworks(choose func(name string) bool) error {
	names := networkNames(choose)
	deadline := time.Now().Add(10 * time.Second)
	left := cgroups{}
	defer left.remove()
	for {
		running := 0
		for _, name := range names {
			for _, pid := range processesIn(name) {
				running++
				left.note(pid)
				// Supervisors take their cgroups with them if they are asked and have no tasks any more.
				how := syscall.SIGKILL
				if isSupervisor(pid) && time.Until(deadline) > 5*time.Second {
					how = syscall.SIGTERM
				}
				_ = syscall.Kill(pid, how)
			}
		}
		if running == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	var errs []error
	for _, name := range names {
		if err := tryIP("netns delete " + name); err != nil && slices.Contains(networkNames(choose), name) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// processesIn lists the processes of a namespace.
func processesIn(netns string) []int {
	out, err := exec.Command("ip", "netns", "pids", netns).Output()
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isSupervisor(pid int) bool {
	arguments, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	fields := strings.Split(string(arguments), "\x00")
	return len(fields) > 1 && fields[1] == "supervisor"
}
