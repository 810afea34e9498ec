package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/initiator"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

const (
	scaleGroup  = 2 << 30
	scaleMemory = 1 << 30 // the default in such a group
	scaleConfig = `data_dir: data
portals: ["127.0.0.1:0"]
tokens: {default_inactivity: 1h, max_inactivity: 1h}
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 1TiB}
      - {lun: 1, volume: dst, size: 1TiB}
log: {level: warn}
`
)

// TestServe_MemoryAtScale: by its defaults, in a control group of 2 GiB, a server with
// many sessions that all read and write, many tokens, and much mapped space stays within its
// memory, and has every token.
func TestServe_MemoryAtScale(t *testing.T) {
	skipWithRaceDetector(t)
	scale := sample.Size(40, 20, 1) // all of it takes minutes
	sessions, tokens, mapped := 1000/scale, 100_000/scale, int64(1<<40)/int64(scale)>>26<<26
	s, group := startInGroup(t, scaleGroup, scaleConfig)
	peak := watchMemory(t, s)
	scraped := keepScraping(t, s)
	mapAll(t, scaleDisk(t, s, "iqn.2026-11.example.odx:mapper"), mapped)
	t.Logf("%d GiB mapped", mapped>>30)

	const makers = 20
	var all sync.WaitGroup
	each := func(n int, do func(ctx context.Context, d *initiator.Disk, r *rand.Rand) error) {
		disks := make([]*initiator.Disk, n)
		for i := range disks {
			disks[i] = scaleDisk(t, s, fmt.Sprintf("iqn.2026-11.example.odx:host%d", i))
		}
		for i, d := range disks {
			all.Go(func() {
				if err := do(t.Context(), d, rand.New(rand.NewPCG(uint64(i), 1))); err != nil {
					t.Errorf("initiator %d: %v", i, err)
				}
			})
		}
		all.Wait()
	}
	each(makers, func(ctx context.Context, d *initiator.Disk, r *rand.Rand) error {
		for range tokens / makers {
			if _, _, err := d.PopulateToken(ctx, r.Int64N(mapped>>20-1)<<20, 1<<20); err != nil {
				return err
			}
		}
		return nil
	})
	// The configuration is the last argument, however the server was started.
	if out, _, _ := output(t, "token", "stats", "--config", s.cmd.Args[len(s.cmd.Args)-1]); !strings.Contains(out, fmt.Sprint(tokens/makers*makers)) {
		t.Errorf("want %d tokens:\n%s", tokens/makers*makers, out)
	}
	each(sessions, func(ctx context.Context, d *initiator.Disk, r *rand.Rand) error {
		block, much := make([]byte, 4096), make([]byte, 1<<20)
		for range 20 {
			for i := range block {
				block[i] = byte(r.Uint32())
			}
			off := r.Int64N(mapped>>20-1) << 20
			if err := d.WriteAt(ctx, block, off); err != nil {
				return err
			}
			if err := d.ReadAt(ctx, much, off); err != nil {
				return err
			}
		}
		return nil
	})
	scraped()
	if n := peak(); n > scaleMemory {
		t.Errorf("%d MiB of anonymous memory, %d is the limit", n>>20, scaleMemory>>20)
	} else {
		t.Logf("%d sessions, %d tokens, %d GiB mapped: %d MiB of anonymous memory at most", sessions, tokens, mapped>>30, n>>20)
	}
	if kills := group.kills(t); kills > 0 {
		t.Errorf("the kernel killed %d processes of the group", kills)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Errorf("%v; standard error:\n%s", err, s.stderr)
	}
}

// scrapeLimit bounds a scrape of a loaded server; the default of Prometheus is 10 s.
const scrapeLimit = 5 * time.Second

// keepScraping scrapes a server every 100 ms until the returned function is called. The
// figures have to be of the time of the scrape, and to have come in time.
func keepScraping(t *testing.T, s *server) (stop func()) {
	client := socketClient(t, s.cmd.Args[len(s.cmd.Args)-1])
	ctx, cancel := context.WithCancel(t.Context())
	var scraping sync.WaitGroup
	var took []time.Duration
	read := regexp.MustCompile(`(?m)^odx_figures_timestamp_seconds (\S+)$`)
	scraping.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			began := time.Now()
			body, err := getAll(client, "http://odx/metrics")
			took = append(took, time.Since(began))
			m := read.FindStringSubmatch(body)
			if err != nil || m == nil {
				t.Errorf("scrape: %v\n%.500s", err, body)
				return
			}
			if at, err := strconv.ParseFloat(m[1], 64); err != nil || float64(began.UnixMilli())/1000-at > 1 {
				t.Errorf("figures of %v at %v: %v", m[1], began.Unix(), err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		scraping.Wait()
		slices.Sort(took)
		t.Logf("%d scrapes, half of them within %v, the longest %v", len(took), took[len(took)/2].Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond))
		if longest := took[len(took)-1]; longest > scrapeLimit {
			t.Errorf("a scrape took %v", longest)
		}
	}
}

// scaleDisk logs in to LUN 0 for the rest of the test.
func scaleDisk(t *testing.T, s *server, name string) *initiator.Disk {
	t.Helper()
	url, err := initiator.ParseURL(fmt.Sprintf("iscsi://%s/iqn.2026-11.example.odx:disks/0", s.portal))
	must.Succeed(t, err)
	d, err := initiator.Open(t.Context(), initiator.Options{InitiatorName: name, URL: url})
	if err != nil {
		t.Fatalf("%v; standard error:\n%s", err, s.stderr)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// mapAll maps the first bytes of a disk to data: some that is written, and copies of it by
// token, each time as much as there is.
func mapAll(t *testing.T, d *initiator.Disk, bytes int64) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	piece := make([]byte, 1<<20)
	const first = 64 << 20
	for off := int64(0); off < first; off += int64(len(piece)) {
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		must.Succeed(t, d.WriteAt(t.Context(), piece, off))
	}
	for have := int64(first); have < bytes; {
		more := min(have, bytes-have)
		token, n, err := d.PopulateToken(t.Context(), 0, more)
		must.Succeed(t, err)
		for done := int64(0); done < n; {
			k, err := d.WriteUsingToken(t.Context(), token, done, have+done, n-done)
			must.Succeed(t, err)
			done += k
		}
		must.Succeed(t, d.ForgetToken(t.Context(), token))
		have += n
	}
}
