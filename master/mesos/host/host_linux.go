package host

import (
	"runtime"
	"syscall"
)

// Metrics are the numbers of this machine, by Mesos' names. What cannot be told is 0.
func Metrics() map[string]float64 {
	var info syscall.Sysinfo_t
	_ = syscall.Sysinfo(&info) // fails for bad pointers alone
	const fixed = 1 << 16      // loads are fixed-point numbers
	return map[string]float64{
		"system/cpus_total":      float64(runtime.NumCPU()),
		"system/load_1min":       float64(info.Loads[0]) / fixed,
		"system/load_5min":       float64(info.Loads[1]) / fixed,
		"system/load_15min":      float64(info.Loads[2]) / fixed,
		"system/mem_total_bytes": float64(info.Totalram) * float64(info.Unit),
		"system/mem_free_bytes":  float64(info.Freeram) * float64(info.Unit),
	}
}
