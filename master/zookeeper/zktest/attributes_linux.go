package zktest

import "syscall"

// attributes let a server end with the process of the test, however that ends.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
