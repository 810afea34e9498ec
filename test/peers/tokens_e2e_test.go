//go:build e2e

package peers

import (
	"testing"
	"time"

	"odx/internal/kit/tokenclient"
)

// write tries a token at a LUN.
func (d *disk) write(token []byte, blocks uint32) (tokenclient.Answer, error) {
	d.t.Helper()
	return d.s.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, tokenclient.Range{Blocks: blocks})
}

// TestToken_Stranger: a token of a store that is no peer is refused at once, and nobody is
// asked about it.
func TestToken_Stranger(t *testing.T) {
	c := strangers(t, 8*mib, "a", "b")
	a, b := newDisk(t, c.Servers[0], 0), newDisk(t, c.Servers[1], 0)
	a.fill(1, 0, 8)
	token := a.token(0, 8)
	var answer tokenclient.Answer
	n := crossed(t, c.Servers[0], func() {
		var err error
		answer, err = b.write(token, perMiB)
		refused(t, "a token of a stranger", answer, err, 0x02)
	})
	if n > 4096 { // neighbour discovery
		t.Errorf("%d bytes crossed the wire", n)
	}
	if answer.Elapsed > time.Second {
		t.Errorf("it took %v", answer.Elapsed)
	}
	b.same()
}
