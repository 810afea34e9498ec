package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"odx/bench/load"
	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

// measureTebibyte serves 1 TiB of mapped data, built from token copies of 1 GiB, times
// copies of all of it, and prints the resident memory of the server. Half of the data
// is shifted by 4 KiB, so that it does not share map nodes.
func measureTebibyte(ctx context.Context, o options) (err error) {
	const gib, half = 1 << 30, 512
	dir := filepath.Join(o.dir, "memory")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	t, err := kit.StartODX(ctx, dir, []kit.LUN{{Size: (2*half + 1) * gib}, {Size: 2 * half * gib}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	empty, err := t.ResidentBytes()
	if err != nil {
		return err
	}
	err = withSession(ctx, t, func(s *tokenclient.Session) error {
		perGiB := uint64(gib / s.BlockLength)
		a, err := s.Write(randomData(), 0, perGiB, tokenclient.WriteOptions{})
		if err != nil || !a.Good() {
			return fmt.Errorf("write: %v, %w", a, err)
		}
		for have := uint64(1); have < half; have *= 2 {
			if _, err := s.OffloadTo(s, 0, have*perGiB, have*perGiB); err != nil {
				return err
			}
		}
		shift := 4096 / uint64(s.BlockLength)
		_, err = s.OffloadTo(s, 0, half*perGiB+shift, half*perGiB)
		return err
	})
	if err != nil {
		return err
	}
	if err := timeTebibyte(ctx, t, o.tokens); err != nil {
		return err
	}
	mapped, err := t.ResidentBytes()
	if err != nil {
		return err
	}
	r, err := load.Run(ctx, t.URL(0), "read", 4<<10, 32, 5*o.length, "random")
	if err != nil {
		return err
	}
	after, err := t.ResidentBytes()
	if err != nil {
		return err
	}
	fmt.Printf("\n1 TiB of mapped data, half of it with unshared maps: resident memory %s after the start, %s after the copies, %s after %d random reads of 4 KiB at %.0f per second\n",
		humanize.IBytes(uint64(empty)), humanize.IBytes(uint64(mapped)), humanize.IBytes(uint64(after)), r.Commands, r.Rate())
	return nil
}

// timeTebibyte copies 1 TiB with one token to the same address of another LUN.
func timeTebibyte(ctx context.Context, t *kit.Target, times int) error {
	return withSession(ctx, t, func(src *tokenclient.Session) error {
		dst, err := src.Client().Open(t.URL(1), tokenclient.OpenOptions{})
		if err != nil {
			return err
		}
		l := latency{}
		for range times {
			timings, err := src.OffloadTo(dst, 0, 0, dst.Blocks)
			if err != nil {
				return err
			}
			l.add(timings)
		}
		fmt.Printf("\n1 TiB by token to the same address, %d times: populate + write median %.2f ms, maximum %.2f ms; %d tokens, %d writes per copy\n",
			times, milliseconds(median(l.both)), milliseconds(slices.Max(l.both)), l.tokens/times, l.writes/times)
		return nil
	})
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
