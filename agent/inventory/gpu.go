package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// gpuName is the device file of one GPU.
var gpuName = regexp.MustCompile(`^nvidia([0-9]+)$`)

// gpuCommon are device files that a program needs beside that of its GPU, where they are there.
var gpuCommon = []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}

// GPU is one that tasks can be given.
type GPU struct {
	Number int
	// Path is its device file.
	Path string
}

// GPUs returns the GPUs that may be used, in order of their numbers. One that is named and not there is an error.
func (m Machine) GPUs(cfg Config) ([]GPU, error) {
	if !cfg.GPUs {
		return nil, nil
	}
	entries, err := os.ReadDir(m.Dev)
	if err != nil {
		return nil, fmt.Errorf("cannot look for GPUs: %w", err)
	}
	var found []GPU
	for _, e := range entries {
		match := gpuName.FindStringSubmatch(e.Name())
		path := filepath.Join(m.Dev, e.Name())
		if match == nil || !m.Device(path) {
			continue
		}
		number, err := strconv.Atoi(match[1])
		if err != nil || cfg.GPUDevices != nil && !slices.Contains(cfg.GPUDevices, number) {
			continue
		}
		found = append(found, GPU{number, path})
	}
	slices.SortFunc(found, func(a, b GPU) int { return a.Number - b.Number })
	for _, number := range cfg.GPUDevices {
		if !slices.ContainsFunc(found, func(g GPU) bool { return g.Number == number }) {
			return nil, fmt.Errorf("--nvidia-gpu-devices names %d, and there is no device %s", number, filepath.Join(m.Dev, "nvidia"+strconv.Itoa(number)))
		}
	}
	return found, nil
}

// GPUCommon returns the device files that go with every GPU.
func (m Machine) GPUCommon() []string {
	var out []string
	for _, name := range gpuCommon {
		if path := filepath.Join(m.Dev, name); m.Device(path) {
			out = append(out, path)
		}
	}
	return out
}

func isDevice(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
