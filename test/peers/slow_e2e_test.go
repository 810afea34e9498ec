//go:build e2e

package peers

import (
	"testing"

	"odx/internal/kit/harness"
)

// TestToken_SlowLink: a token that takes longer to come than a command may take is written by
// several commands, none of which is refused.
func TestToken_SlowLink(t *testing.T) {
	const size = 96
	c := servers(t, size*mib, "a", "b")
	a, b := newDisk(t, c.Servers[0], 0), newDisk(t, c.Servers[1], 0)
	a.fill(1, 0, size)
	token := a.token(0, size)
	harness.Must(t, c.Servers[0].Host.Rate(faultRate))
	b.spend(token, 0, a.want)
	harness.Must(t, c.Servers[0].Host.Rate(0))
	b.same()
}
