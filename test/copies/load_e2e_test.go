//go:build e2e

package copies

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	loadClients = 3
	loadWrites  = 6
	loadSeed    = 64 << 20 // random bytes that the source repeats
	// loadCopy is what one command is asked for: more than any machine moves in
	// the 800 ms after which a command answers. It takes the room of loadSeed.
	loadCopy = 32 << 30
	loadDisk = loadCopy + 1<<30
	// clientWaits is how long Windows waits for a token command.
	clientWaits = 4 * time.Second
)

// TestTokenCommandsAnswerInTimeUnderLoad copies by token where the data has to be
// moved, while other initiators write as fast as they can: each write does less
// than it is asked for, says how much, and answers before Windows gives up.
func TestTokenCommandsAnswerInTimeUnderLoad(t *testing.T) {
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: loadDisk}, kit.LUN{Size: loadDisk})
	source := harness.Open(t, harness.Client(t), target.URL(0))
	destination := harness.Open(t, harness.Client(t), target.URL(1))
	repeatSeed(t, source)
	stopLoad := startLoad(t, target)
	defer stopLoad()

	var slowest time.Duration
	timed := func(a tokenclient.Answer) tokenclient.Answer {
		slowest = max(slowest, a.Elapsed)
		if a.Elapsed > clientWaits {
			t.Errorf("a command took %v: %v", a.Elapsed, a)
		}
		return a
	}
	a, err := source.PopulateToken(tokenclient.PopulateOptions{}, loadRanges(0)...)
	if err != nil || !timed(a).Good() {
		t.Fatalf("populate token: %v, %v", err, a)
	}
	info, a, err := source.TokenInformation()
	if err != nil || !timed(a).Good() || info.TransferCount != loadCopy/512 {
		t.Fatalf("token: %v, %v, %d blocks", err, a, info.TransferCount)
	}
	short := 0
	for i := range uint64(loadWrites) {
		// Less than 4 KiB off, so that nothing can be mapped, and each time
		// otherwise, so that nothing is there already.
		a, err := destination.WriteUsingToken(info.Token, tokenclient.WriteTokenOptions{}, loadRanges(1+i)...)
		switch {
		case err != nil:
			t.Fatal(err)
		case timed(a).Status == busy:
		case a.Sense.Is(0xa, 0x0d, 0x04) && a.Sense.Information > 0 && a.Sense.Information < loadCopy/512:
			short++
		default:
			t.Fatalf("write using token: %v, want COPY TARGET DEVICE DATA UNDERRUN with a count", a)
		}
	}
	t.Logf("%d of %d writes ended early; the slowest command took %v", short, loadWrites, slowest)
	if short == 0 {
		t.Error("every write was refused as busy")
	}
}

// repeatSeed fills the first loadCopy bytes of a LUN with random bytes that repeat:
// it writes them once and copies them by token, which moves no data.
func repeatSeed(t *testing.T, s *tokenclient.Session) {
	t.Helper()
	if a, err := s.Write(rand.NewChaCha8([32]byte{1}), 0, loadSeed/512, tokenclient.WriteOptions{}); err != nil || !a.Good() {
		t.Fatalf("write the source: %v, %v", err, a)
	}
	for n := uint64(loadSeed / 512); n < loadCopy/512; n *= 2 {
		if _, err := s.OffloadTo(s, 0, n, n); err != nil {
			t.Fatal(err)
		}
	}
}

// loadRanges are the loadCopy bytes from lba on, in ranges that one command takes.
func loadRanges(lba uint64) []tokenclient.Range {
	const step = 2 << 30 / 512
	var all []tokenclient.Range
	for n := uint64(0); n < loadCopy/512; n += step {
		all = append(all, tokenclient.Range{LBA: lba + n, Blocks: step})
	}
	return all
}

const busy = 0x08

// startLoad has clients write random data after the copied ranges of both LUNs, with a
// flush now and then, until the function that it returns is called.
func startLoad(t *testing.T, target *kit.Target) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range loadClients {
		s := harness.Open(t, harness.Client(t), target.URL(i%2))
		clients.Go(func() {
			random := rand.NewChaCha8([32]byte{2, byte(i)})
			for ctx.Err() == nil {
				const blocks = 8 << 20 / 512
				lba := loadCopy/512 + 8 + random.Uint64()%(256<<20/512-blocks)
				a, err := s.Write(random, lba, blocks, tokenclient.WriteOptions{Depth: 32, Chunk: 64})
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
