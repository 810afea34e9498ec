//go:build e2e

package crash

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"odx/test/odxtest"
	"odx/test/tokencopy"
	"odx/test/undertest"
)

const (
	rounds   = 12
	diskSize = 16 << 20
	// A round is killed at a random moment before this.
	longestRound = 500 * time.Millisecond
)

// TestKilledWhileWriting writes, flushes and writes with FUA through libiscsi,
// kills the target by SIGKILL at random moments and checks the whole disk
// after each restart.
func TestKilledWhileWriting(t *testing.T) {
	odxtest.RequireODX(t)
	target := odxtest.Serve(t, undertest.LUN{Size: diskSize})
	client := odxtest.Client(t)
	r := rand.New(rand.NewPCG(3, 5))
	m := newModel(diskSize / blockLength)
	writes, flushes := 0, 0
	for round := range rounds {
		s := odxtest.Open(t, client, target.URL(0))
		killed := make(chan error, 1)
		time.AfterFunc(time.Duration(r.Int64N(int64(longestRound))), func() { killed <- target.Kill() })
		for {
			if err := step(t, s, m, r, &flushes); err != nil {
				break
			}
			writes++
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := target.Restart(context.Background()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s = odxtest.Open(t, client, target.URL(0))
		var disk bytes.Buffer
		a, err := s.Read(&disk, 0, s.Blocks)
		if err != nil || !a.Good() {
			t.Fatalf("round %d: read it all: %v, %v", round, a, err)
		}
		if err := m.check(disk.Bytes()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s.Close()
	}
	t.Logf("%d rounds, %d writes, %d flushes", rounds, writes, flushes)
	if flushes < rounds {
		t.Errorf("only %d flushes succeeded: too few to prove anything", flushes)
	}
}

// step does one write or flush; an error says that the target was gone.
func step(t *testing.T, s *tokencopy.Session, m *model, r *rand.Rand, flushes *int) error {
	t.Helper()
	var a tokencopy.Answer
	var err error
	n := 1 + r.IntN(16)
	if r.IntN(8) == 0 {
		n = 1 + r.IntN(4096) // several commands of up to 256 KiB
	}
	lba := r.Uint64N(s.Blocks - uint64(n))
	if r.IntN(2) == 0 {
		lba &^= 7
	}
	switch r.IntN(8) {
	case 0:
		if a, err = s.Flush(); err == nil {
			m.flushed()
			*flushes++
		}
	case 1:
		data := m.write(lba, n)
		if a, err = s.Write(bytes.NewReader(data), lba, uint64(n), tokencopy.WriteOptions{FUA: true}); err == nil {
			m.durable(lba, n)
		}
	default:
		data := m.write(lba, n)
		a, err = s.Write(bytes.NewReader(data), lba, uint64(n), tokencopy.WriteOptions{})
	}
	if err == nil && !a.Good() {
		t.Fatalf("the target answered %v", a)
	}
	return err
}
