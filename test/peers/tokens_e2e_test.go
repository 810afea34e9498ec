//go:build e2e

package peers

import (
	"encoding/base64"
	"testing"
	"time"

	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

// TestToken: a token of A is written to LUNs of B and C. Only what B has not crosses the
// wire; holes, and what B has from A, cross it as names.
func TestToken(t *testing.T) {
	const size = 64
	c := servers(t, size*mib, "a", "b", "c")
	a, b := newDisk(t, c.Servers[0], 0), newDisk(t, c.Servers[1], 0)
	a.fill(1, 0, 16)
	a.fill(2, 24, 8) // 16 to 24 is a hole
	b.fill(3, 0, size)
	token := a.token(0, 32)
	a.fill(4, 0, 8) // what is written after the token is not in it
	data := make([]byte, 32*mib)
	random(data[:16*mib], 1)
	random(data[24*mib:], 2)

	const stored = 24 * mib
	n := crossed(t, c.Servers[1], func() { b.spend(token, 0, data) })
	t.Logf("%d bytes crossed the wire for %d, %.2f %% more", n, stored, 100*float64(n-stored)/stored)
	if n > stored*105/100 { // 2 % and the headers of TCP and IP
		t.Errorf("%d bytes crossed the wire for %d", n, stored)
	}
	b.same()

	n = crossed(t, c.Servers[1], func() { b.spend(token, 32, data) })
	t.Logf("%d bytes crossed the wire for what was there", n)
	if n > mib {
		t.Errorf("%d bytes crossed the wire for what was there", n)
	}
	b.same()

	third := newDisk(t, c.Servers[2], 1)
	third.spend(token, 0, data)
	third.same()
	unpinned(t, c.Servers[0], 10*time.Second)
	for _, s := range c.Servers {
		sound(t, s)
	}
}

// write tries a token at a LUN.
func (d *disk) write(token []byte, blocks uint32) (tokenclient.Answer, error) {
	d.t.Helper()
	return d.s.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, tokenclient.Range{Blocks: blocks})
}

// TestToken_Refused: the server that made a token decides about it, each time; B has the
// same sense codes from it as initiators of A, and nothing is written.
func TestToken_Refused(t *testing.T) {
	c := servers(t, 8*mib, "a", "b")
	a, b := newDisk(t, c.Servers[0], 0), newDisk(t, c.Servers[1], 0)
	a.fill(1, 0, 8)
	b.fill(2, 0, 8)

	revoked := a.token(0, 4)
	answer, err := b.write(revoked, perMiB)
	good(t, "a token that is good", answer, err)
	copy(b.want, a.want[:mib])
	harness.Must(t, c.Servers[0].Admin(t.Context(), nil, "token", "delete", base64.StdEncoding.EncodeToString(revoked)))
	answer, err = b.write(revoked, perMiB)
	refused(t, "a revoked token", answer, err, 0x04, 0x06, 0x09)

	populate, err := a.s.PopulateToken(tokenclient.PopulateOptions{Timeout: 1}, tokenclient.Range{Blocks: perMiB})
	good(t, "populate", populate, err)
	info, populate, err := a.s.TokenInformation()
	good(t, "token information", populate, err)
	until(t, 10*time.Second, "the token expires", func() bool {
		var live []struct {
			ID string `json:"id"`
		}
		harness.Must(t, c.Servers[0].Admin(t.Context(), &live, "token", "list"))
		return len(live) == 0
	})
	answer, err = b.write(info.Token, perMiB)
	refused(t, "an expired token", answer, err, 0x04, 0x07)

	for at := range tokenclient.TokenLength {
		if at%17 > 0 && at%16 > 0 {
			continue
		}
		bad := a.token(0, 1)
		bad[at] ^= 0x10
		answer, err = b.write(bad, perMiB)
		harness.Must(t, err)
		if answer.Good() {
			t.Errorf("a token with another byte %d is accepted", at)
		}
	}
	b.same()
	unpinned(t, c.Servers[0], 10*time.Second)
}

// TestToken_UnknownStore: a token of a store that is no peer is refused at once, and no server
// is asked about it.
func TestToken_UnknownStore(t *testing.T) {
	c := unacquainted(t, 8*mib, "a", "b")
	a, b := newDisk(t, c.Servers[0], 0), newDisk(t, c.Servers[1], 0)
	a.fill(1, 0, 8)
	token := a.token(0, 8)
	var answer tokenclient.Answer
	n := crossed(t, c.Servers[0], func() {
		var err error
		answer, err = b.write(token, perMiB)
		refused(t, "a token of an unknown store", answer, err, 0x02)
	})
	if n > 4096 { // neighbour discovery
		t.Errorf("%d bytes crossed the wire", n)
	}
	if answer.Elapsed > time.Second {
		t.Errorf("it took %v", answer.Elapsed)
	}
	b.same()
}

// TestToken_Unreachable: the server of a token that does not answer, for whatever reason,
// costs a command a bounded time, and is used again when it is back.
func TestToken_Unreachable(t *testing.T) {
	const bound = 5 * time.Second
	c := servers(t, 8*mib, "a", "b")
	first := c.Servers[0]
	a, b := newDisk(t, first, 0), newDisk(t, c.Servers[1], 0)
	a.fill(1, 0, 8)
	token := a.token(0, 8)
	for _, fault := range []struct {
		name    string
		on, off func() error
		says    string // in the log of B, a regular expression
	}{
		{"dropped packets", first.Host.Drop, first.Host.Pass, "deadline exceeded|i/o timeout"},
		{"a link that is down", first.Host.Down, first.Host.Up, "deadline exceeded|i/o timeout"},
		{"a server that was killed", first.Kill, func() error { return first.Restart(t.Context()) }, "connection refused"},
		{"a certificate that has expired", certificate(t, first, cluster.Expired), certificate(t, first, cluster.Valid), "expired"},
		{"a certificate that is not valid yet", certificate(t, first, cluster.NotYet), certificate(t, first, cluster.Valid), "not yet valid"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			before := len(c.Servers[1].Log())
			harness.Must(t, fault.on())
			var answer tokenclient.Answer
			var err error
			// The one before has served the token moments ago.
			until(t, 10*time.Second, "the token is refused", func() bool {
				answer, err = b.write(token, perMiB)
				return err != nil || answer.Status != busy
			})
			refused(t, fault.name, answer, err, 0x00, 0x02)
			if answer.Elapsed > bound {
				t.Errorf("it took %v", answer.Elapsed)
			}
			t.Logf("%v after %v", answer, answer.Elapsed)
			awaitLog(t, c.Servers[1], before, 10*time.Second, fault.says)
			harness.Must(t, fault.off())
			until(t, 20*time.Second, "the token is good again", func() bool {
				answer, err := b.write(token, perMiB)
				harness.Must(t, err)
				return answer.Good()
			})
			copy(b.want, a.want[:mib])
			b.same()
		})
	}
}

// certificate gives a server another certificate. It is started again, since connections
// that others have to it were begun with the one before.
func certificate(t *testing.T, s *cluster.Server, v cluster.Validity) func() error {
	return func() error {
		if err := s.Certify(v); err != nil {
			return err
		}
		if err := s.Kill(); err != nil {
			return err
		}
		return s.Restart(t.Context())
	}
}
