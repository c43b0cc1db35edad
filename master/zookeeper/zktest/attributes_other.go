//go:build !linux

package zktest

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
