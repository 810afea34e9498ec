//go:build e2e

package peers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	// faultMiB is copied while a fault comes, over a link of faultRate bits a second.
	faultMiB  = 48
	faultRate = 160e6
	busy      = 0x08 // a status code: try again
	// patience is how long a copy is tried in spite of faults.
	patience = time.Minute
)

// TestToken_Faults: while a token of A is copied to B, again and again, the network drops
// everything for a while, or is down, or A or B is killed at any time. The copy goes on where it came to, or begins
// again where B was killed; B has the right bytes in the end, and A keeps nothing for it.
func TestToken_Faults(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 1))
	c := servers(t, faultMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a, b := newDisk(t, first, 0), newDisk(t, second, 0)
	harness.Must(t, first.Host.Rate(faultRate))
	for i := range *faults {
		for kind, fault := range []func(){
			func() { kill(t, second) },
			func() { cut(t, first.Host.Drop, first.Host.Pass, rng) },
			func() { cut(t, second.Host.Down, second.Host.Up, rng) },
			func() { kill(t, first) }, // last: what it keeps for a server that is gone ends with it
		} {
			what := fmt.Sprintf("round %d, fault %d", i, kind)
			a.again(first, 0)
			b.again(second, 0)
			a.fill(uint64(i*10+kind), 0, faultMiB)
			token := a.token(0, faultMiB)
			copied := make(chan error, 1)
			begun := counted(t, second)
			go func() { copied <- b.persist(token, faultMiB*perMiB) }()
			at := int64(1+rng.IntN(faultMiB-8)) * mib
			ended := awaitBytes(t, second, begun+at, copied)
			if ended != nil {
				t.Fatalf("%s: the copy ended before %d bytes: %v", what, at, ended)
			}
			fault()
			err := <-copied
			if kind == 0 { // the session ended with B
				if err == nil {
					t.Logf("%s: the copy had ended", what)
				}
				b.again(second, 0)
				err = b.persist(token, faultMiB*perMiB)
			}
			if err != nil {
				t.Fatalf("%s at byte %d: %v", what, at, err)
			}
			copy(b.want, a.want)
			b.same()
			t.Logf("%s at byte %d: all is there", what, at)
		}
	}
	harness.Must(t, first.Host.Rate(0))
	unpinned(t, first, time.Minute)
	for _, s := range c.Servers {
		sound(t, s)
	}
}

// cut has a network fail for up to 3 seconds.
func cut(t *testing.T, on, off func() error, rng *rand.Rand) {
	t.Helper()
	harness.Must(t, on())
	time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond) // the fault itself
	harness.Must(t, off())
}

// kill kills a server and starts it again.
func kill(t *testing.T, s *cluster.Server) {
	t.Helper()
	harness.Must(t, s.Kill(), s.Restart(t.Context()))
}

// awaitBytes waits until a host has sent and got so many bytes, or what is done has ended,
// whose error it returns.
func awaitBytes(t *testing.T, s *cluster.Server, bytes int64, done <-chan error) error {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for counted(t, s) < bytes {
		select {
		case err := <-done:
			return errors.Join(errors.New("it ended"), err)
		case <-tick.C:
		}
	}
	return nil
}

// persist writes a token to the beginning of the LUN, until all of it is there. It goes on
// where a command came to, and tries again where one is refused for now.
func (d *disk) persist(token []byte, blocks uint64) error {
	end := time.Now().Add(patience)
	for done := uint64(0); done < blocks; {
		a, err := d.s.WriteUsingToken(token, tokenclient.WriteTokenOptions{Offset: done}, tokenclient.Range{LBA: done, Blocks: uint32(blocks - done)})
		switch {
		case err != nil:
			return err
		case a.Good():
			return nil
		case a.Sense.ASC == 0x0d && a.Sense.ASCQ == 0x04 && a.Sense.Information > 0:
			done += a.Sense.Information
		case time.Now().After(end):
			return fmt.Errorf("still refused after %v, at block %d: %v", patience, done, a)
		case a.Sense.Is(5, 0x23, 0x02), a.Sense.Is(5, 0x23, 0x00), a.Sense.ASC == 0x0d, a.Status == busy, a.Sense.Key == 2, a.Sense.Key == 6:
			time.Sleep(50 * time.Millisecond) // as an initiator does before it tries again
		default:
			return fmt.Errorf("at block %d: %v", done, a)
		}
	}
	return nil
}
