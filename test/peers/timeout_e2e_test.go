//go:build e2e

package peers

import (
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout has a TCP connection end when what was sent is not acknowledged for so
// long.
func setUserTimeout(fd uintptr, d time.Duration) error {
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
