package e2e

import "syscall"

// Windows has no such signals, and sends none but SIGKILL: to send these is an error.
const sigHalt, sigGoOn = syscall.SIGINT, syscall.SIGINT
