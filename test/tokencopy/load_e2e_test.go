//go:build e2e

package tokencopy_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"odx/test/odxtest"
	"odx/test/tokencopy"
	"odx/test/undertest"
)

const (
	loadClients = 3
	loadDisk    = 512 << 20
	loadCopy    = 256 << 20 // the most that Windows asks for at once
	loadTime    = 4 * time.Second
	// answerTime is what each token command may take, so that Windows, which
	// waits four seconds, does not give up even where more comes together.
	answerTime = time.Second
)

// TestTokenCommandsAnswerInTimeUnderLoad copies by token where the data has to be
// moved, while other initiators write as fast as they can: each command answers
// in time, by doing less and saying how much.
func TestTokenCommandsAnswerInTimeUnderLoad(t *testing.T) {
	odxtest.RequireODX(t)
	target := odxtest.Serve(t, undertest.LUN{Size: loadDisk}, undertest.LUN{Size: loadDisk})
	source := odxtest.Open(t, odxtest.Client(t), target.URL(0))
	destination := odxtest.Open(t, odxtest.Client(t), target.URL(1))
	const copied = loadCopy / 512
	random := rand.NewChaCha8([32]byte{1})
	if a, err := source.Write(random, 0, copied, tokencopy.WriteOptions{}); err != nil || !a.Good() {
		t.Fatalf("write the source: %v, %v", a, err)
	}
	stopLoad := startLoad(t, target)
	defer stopLoad()

	var slowest time.Duration
	commands, short := 0, 0
	timed := func(a tokencopy.Answer) {
		commands++
		slowest = max(slowest, a.Elapsed)
		if a.Elapsed > answerTime {
			t.Errorf("command %d took %v: %v", commands, a.Elapsed, a)
		}
	}
	for began := time.Now(); time.Since(began) < loadTime; {
		a, err := source.PopulateToken(tokencopy.PopulateOptions{}, tokencopy.Range{LBA: 0, Blocks: copied})
		if err != nil {
			t.Fatal(err)
		}
		timed(a)
		if a.Status == busy {
			continue
		}
		info, a, err := source.TokenInformation()
		if err != nil || !a.Good() || info.TransferCount != copied {
			t.Fatalf("token: %v, %v, %d blocks", a, err, info.TransferCount)
		}
		timed(a)
		// A block off, so that nothing can be mapped.
		for done := uint64(0); done < copied-1 && time.Since(began) < loadTime; {
			a, err := destination.WriteUsingToken(info.Token, tokencopy.WriteTokenOptions{Offset: done},
				tokencopy.Range{LBA: 1 + done, Blocks: uint32(copied - 1 - done)})
			if err != nil {
				t.Fatal(err)
			}
			timed(a)
			switch {
			case a.Good():
				done = copied
			case a.Sense.Is(0xa, 0x0d, 0x04) && a.Sense.Information > 0:
				done += a.Sense.Information
				short++
			case a.Status != busy:
				t.Fatalf("write using token: %v", a)
			}
		}
	}
	t.Logf("%d commands, the slowest took %v; %d writes ended early", commands, slowest, short)
	if short == 0 {
		t.Error("no write had to end early: the load proves nothing")
	}
}

const busy = 0x08

// startLoad has clients write random data to the other halves of both LUNs, with
// a flush now and then, until the function that it returns is called.
func startLoad(t *testing.T, target *undertest.Target) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range loadClients {
		s := odxtest.Open(t, odxtest.Client(t), target.URL(i%2))
		clients.Go(func() {
			random := rand.NewChaCha8([32]byte{2, byte(i)})
			for ctx.Err() == nil {
				const blocks = 8 << 20 / 512
				lba := loadCopy/512 + 8 + random.Uint64()%(loadCopy/512-blocks-8)
				a, err := s.Write(random, lba, blocks, tokencopy.WriteOptions{Depth: 32, Chunk: 64})
				if err == nil && a.Good() {
					a, err = s.Flush()
				}
				if err != nil || !a.Good() {
					t.Errorf("load: %v, %v", a, err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		clients.Wait()
	}
}
