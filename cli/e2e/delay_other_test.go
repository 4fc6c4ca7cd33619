//go:build !linux

package e2e

import "time"

const farAddress = "10.78.0.1"

func (l *lab) far(time.Duration) (here, there string) {
	l.t.Skip("a path that delays needs Linux")
	return "", ""
}
