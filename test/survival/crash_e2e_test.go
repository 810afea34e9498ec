//go:build e2e

package survival

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	killRounds = 12
	diskSize   = 16 << 20
	// A round is killed at a random time before this.
	longestRound = 500 * time.Millisecond
)

// TestKilledWhileWriting writes, flushes, writes with FUA or without a write
// cache, copies by token and unmaps through libiscsi, kills the target by SIGKILL at random times and
// checks the whole disk after each restart.
func TestKilledWhileWriting(t *testing.T) {
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: diskSize})
	client := harness.Client(t)
	r := rand.New(rand.NewPCG(3, 5))
	m := newModel(diskSize / blockLength)
	commands, flushes := 0, 0
	for round := range killRounds {
		s := harness.Open(t, client, target.URL(0))
		chooseCache(t, s, m, r)
		killed := make(chan error, 1)
		time.AfterFunc(time.Duration(r.Int64N(int64(longestRound))), func() { killed <- target.Kill() })
		for {
			if err := step(t, s, m, r, &flushes); err != nil {
				break
			}
			commands++
		}
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := target.Restart(context.Background()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s = harness.Open(t, client, target.URL(0))
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
	t.Logf("%d rounds, %d commands, %d flushes", killRounds, commands, flushes)
	if flushes < killRounds {
		t.Errorf("only %d flushes succeeded: too few to prove anything", flushes)
	}
}

// step does one of these; an error says that the target had ended.
func step(t *testing.T, s *tokenclient.Session, m *model, r *rand.Rand, flushes *int) error {
	t.Helper()
	var a tokenclient.Answer
	var err error
	n := 1 + r.IntN(16)
	if r.IntN(8) == 0 {
		n = 1 + r.IntN(4096) // several commands of up to 256 KiB
	}
	lba := r.Uint64N(s.Blocks - uint64(n))
	if r.IntN(2) == 0 {
		lba &^= 7
	}
	switch r.IntN(10) {
	case 0:
		if a, err = s.Flush(); err == nil {
			m.flushed()
			*flushes++
		}
	case 1:
		data := m.write(lba, n)
		if a, err = s.Write(bytes.NewReader(data), lba, uint64(n), tokenclient.WriteOptions{FUA: true}); err == nil {
			m.durable(lba, n)
		}
	case 2, 3:
		to := r.Uint64N(s.Blocks - uint64(n))
		if r.IntN(2) == 0 {
			to &^= 7
		}
		a, err = copyByToken(s, m, lba, to, n)
	case 4:
		m.unmapped(lba, n)
		list := make([]byte, 24)
		list[1], list[3] = 22, 16
		binary.BigEndian.PutUint64(list[8:], lba)
		binary.BigEndian.PutUint32(list[16:], uint32(n))
		a, err = s.Command([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0)
	default:
		data := m.write(lba, n)
		a, err = s.Write(bytes.NewReader(data), lba, uint64(n), tokenclient.WriteOptions{})
	}
	if err != nil {
		return err
	}
	if !a.Good() {
		t.Fatalf("the target answered %v", a)
	}
	m.answered()
	return nil
}

// chooseCache turns the target's write cache off in one of three rounds (WCE in
// the caching mode page, SBC-3 6.4.5): then the model wants more.
func chooseCache(t *testing.T, s *tokenclient.Session, m *model, r *rand.Rand) {
	t.Helper()
	const header, wce = 8, 0x04
	m.writeThrough = r.IntN(3) == 0
	a, err := s.Command([]byte{0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, header + 20, 0}, nil, header+20)
	if err != nil || !a.Good() {
		t.Fatalf("mode sense: %v, %v", a, err)
	}
	list := a.Data
	clear(list[:header])
	list[header] &= 0x3f // without PS
	list[header+2] |= wce
	if m.writeThrough {
		list[header+2] &^= wce
	}
	a, err = s.Command([]byte{0x55, 0x10, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}, list, 0)
	if err != nil || !a.Good() {
		t.Fatalf("mode select: %v, %v", a, err)
	}
}

// copyByToken copies within the LUN; the token is not used again.
func copyByToken(s *tokenclient.Session, m *model, lba, to uint64, n int) (tokenclient.Answer, error) {
	a, err := s.PopulateToken(tokenclient.PopulateOptions{}, tokenclient.Range{LBA: lba, Blocks: uint32(n)})
	if err != nil || !a.Good() {
		return a, err
	}
	data := m.snapshot(lba, n)
	info, a, err := s.TokenInformation()
	if err != nil || !a.Good() {
		return a, err
	}
	m.copied(to, data)
	return writeToken(s, info.Token, to, n)
}

// writeToken writes all of a token and deletes it. A write may end early to
// bound its time, and says how far it came.
func writeToken(s *tokenclient.Session, token []byte, to uint64, n int) (tokenclient.Answer, error) {
	for done := uint64(0); ; {
		left := uint64(n) - done
		a, err := s.WriteUsingToken(token, tokenclient.WriteTokenOptions{Offset: done}, tokenclient.Range{LBA: to + done, Blocks: uint32(left)})
		if err == nil && a.Good() {
			return s.WriteUsingToken(token, tokenclient.WriteTokenOptions{Delete: true}, tokenclient.Range{})
		}
		if err != nil || !a.Sense.Is(0xa, 0x0d, 0x04) || a.Sense.Information == 0 || a.Sense.Information >= left {
			return a, err
		}
		done += a.Sense.Information
	}
}
