//go:build !windows

package e2e

import "syscall"

// sigHalt halts a process, and sigGoOn has it go on.
const sigHalt, sigGoOn = syscall.SIGSTOP, syscall.SIGCONT
