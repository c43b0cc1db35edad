//go:build !linux || !cgo

package libct

import (
	"fmt"
	"os"
)

// builtIn tells why containers can't be had with this binary.
const builtIn = "this binary was built without cgo"

const seccompBuiltIn = false

// Main tells that there are no containers.
func Main([]string) int {
	fmt.Fprintln(os.Stderr, "container:", builtIn)
	return 1
}
