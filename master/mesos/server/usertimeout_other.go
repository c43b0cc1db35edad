//go:build !linux

package server

import (
	"net"
	"time"
)

// setUserTimeout does nothing here: only Linux lets a program choose.
func setUserTimeout(net.Conn, time.Duration) {}
