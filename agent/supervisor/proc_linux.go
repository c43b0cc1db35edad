package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// proc is one line of the process table.
type proc struct {
	pid, ppid, pgrp, sid int
	state                byte
	// ticks is the start time in clock ticks since boot.
	ticks uint64
	// exit is the wait status of a zombie, or 0 where we are not allowed to know it.
	exit int
}

func (p proc) zombie() bool { return p.state == 'Z' || p.state == 'X' }

var errStat = errors.New("malformed stat line")

// readProc reads /proc/<pid>/stat.
func readProc(pid int) (proc, error) {
	var buf [512]byte
	line, err := readFile("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return proc{}, err
	}
	return parseStat(line)
}

// parseStat reads the fields that we need. The second one, the name in parentheses, can hold anything, blanks and
// parentheses too; hence the search for the last one.
func parseStat(line []byte) (proc, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return proc{}, errStat
	}
	var p proc
	var err error
	if p.pid, err = strconv.Atoi(strings.TrimSpace(string(line[:open]))); err != nil {
		return proc{}, errStat
	}
	// f[0] is field 3, the state.
	f := strings.Fields(string(line[end+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return proc{}, errStat
	}
	p.state = f[0][0]
	for _, field := range []struct {
		to *int
		i  int
	}{{&p.ppid, 4}, {&p.pgrp, 5}, {&p.sid, 6}} {
		if *field.to, err = strconv.Atoi(f[field.i-3]); err != nil {
			return proc{}, errStat
		}
	}
	if p.ticks, err = strconv.ParseUint(f[22-3], 10, 64); err != nil {
		return proc{}, errStat
	}
	if len(f) > 52-3 {
		if p.exit, err = strconv.Atoi(f[52-3]); err != nil {
			return proc{}, errStat
		}
	}
	return p, nil
}

// listProcs reads the whole process table. A process that vanishes meanwhile is left out.
func listProcs() ([]proc, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	procs := make([]proc, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := readProc(pid); err == nil {
			procs = append(procs, p)
		}
	}
	return procs, nil
}

// hasMark reports whether the environment that the process was started with holds the mark of the container. It is
// false where we may not look.
func hasMark(pid int, supervisor, id string) bool {
	env, err := readFile("/proc/"+strconv.Itoa(pid)+"/environ", make([]byte, 8192))
	if err != nil {
		return false
	}
	var ours, same bool
	for len(env) > 0 {
		entry, rest, _ := bytes.Cut(env, []byte{0})
		env = rest
		if v, ok := bytes.CutPrefix(entry, []byte(MarkSupervisor+"=")); ok {
			ours = string(v) == supervisor
		} else if v, ok := bytes.CutPrefix(entry, []byte(MarkContainer+"=")); ok {
			same = string(v) == id
		}
	}
	return ours && same
}

// bootID names the time since the machine was started; process ids and ticks mean something within it only.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
