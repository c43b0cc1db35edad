package image

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// here is the platform of this machine.
func here() v1.Platform {
	p := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	switch runtime.GOARCH {
	case "arm":
		p.Variant = "v7"
		if b, err := os.ReadFile("/proc/cpuinfo"); err == nil && strings.Contains(string(b), "ARMv6") {
			p.Variant = "v6"
		}
	case "arm64":
		p.Variant = "v8"
	}
	return p
}

// fit tells how well an image of a platform runs on another: higher is better, negative is not at all.
func fit(want v1.Platform, have *v1.Platform) int {
	if have == nil {
		return 0 // it does not say, so it may
	}
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return -1
	}
	switch {
	case have.Variant == want.Variant:
		return 100
	case have.Variant == "":
		return 50
	case want.Architecture == "arm" && have.Variant < want.Variant: // an older ARM's program runs on a newer one
		return int(have.Variant[len(have.Variant)-1] - '0')
	case want.Variant == "": // amd64 "v2" and the like say what processor they need, which is not known here
		return 1
	}
	return -1
}

// choose returns the descriptor of an index that suits the platform best.
func choose(index *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	best, score := v1.Descriptor{}, -1
	var others []string
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() && d.MediaType != "" {
			continue
		}
		if d.Platform != nil && d.Platform.OS == "unknown" { // attestations
			continue
		}
		if f := fit(want, d.Platform); f > score {
			best, score = d, f
		}
		if d.Platform != nil {
			others = append(others, d.Platform.String())
		}
	}
	if score < 0 {
		slices.Sort(others)
		return best, fmt.Errorf("there is none for %s; there is %s", want, strings.Join(slices.Compact(others), ", "))
	}
	return best, nil
}

// descend follows indexes to the manifest for a platform. next reads the index that a descriptor is of.
func descend(index *v1.IndexManifest, want v1.Platform, next func(v1.Descriptor) (*v1.IndexManifest, error)) (v1.Descriptor, error) {
	for range 4 {
		d, err := choose(index, want)
		if err != nil || !d.MediaType.IsIndex() {
			return d, err
		}
		if index, err = next(d); err != nil {
			return d, err
		}
	}
	return v1.Descriptor{}, errors.New("its indexes lead to indexes only")
}

// runsHere judges the configuration of an image that came without an index.
func runsHere(c *v1.ConfigFile, want v1.Platform) error {
	if c.OS == "" && c.Architecture == "" {
		return nil
	}
	have := v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	if have.OS == "" {
		have.OS = want.OS
	}
	if have.Architecture == "" {
		have.Architecture = want.Architecture
	}
	if fit(want, &have) < 0 {
		return fmt.Errorf("it is for %s, this machine is %s", have, want)
	}
	return nil
}
