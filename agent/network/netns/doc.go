// Package netns works in a network namespace other than that of the process.
//
// A namespace belongs to a thread of the operating system: everything here locks the goroutine to one for as long as it is
// elsewhere, brings it back, and throws it away where that does not succeed. The first thread of the process never goes
// elsewhere: what is read of the process in /proc is read of that one.
package netns

import "errors"

// ErrEnter is what an error is where a namespace is not there, or not for us.
var ErrEnter = errors.New("cannot enter network namespace")
