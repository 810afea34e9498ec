package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

// tokenSize is the data of a token in bytes.
const tokenSize = 1 << 30

// timeTokens times many token copies of up to 1 GiB of written data between LUNs, to
// 4 KiB aligned addresses.
func timeTokens(ctx context.Context, o options) (err error) {
	dir := filepath.Join(o.dir, "tokens")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	t, err := kit.StartODX(ctx, dir, []kit.LUN{{Size: tokenSize}, {Size: 4 * tokenSize}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	if err := fill(ctx, t); err != nil {
		return fmt.Errorf("fill the source: %w", err)
	}
	c, err := tokenclient.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	src, err := c.Open(t.URL(0), tokenclient.OpenOptions{})
	if err != nil {
		return err
	}
	dst, err := c.Open(t.URL(1), tokenclient.OpenOptions{})
	if err != nil {
		return err
	}
	var rows []latency
	anywhere := func(i int) uint64 { return uint64(i) * 8 * 12347 % (dst.Blocks - src.Blocks) }
	for _, copies := range []struct {
		name   string
		blocks uint64
		lba    func(i int) uint64
	}{
		{"256 MiB to the same address", src.Blocks / 4, func(int) uint64 { return 0 }},
		{"256 MiB to an address moved by 4 KiB", src.Blocks / 4, func(int) uint64 { return 4096 / uint64(src.BlockLength) }},
		{"256 MiB to any address, 4 KiB aligned", src.Blocks / 4, anywhere},
		{"1 GiB to the same address", src.Blocks, func(int) uint64 { return 0 }},
		{"1 GiB to an address moved by 1 GiB", src.Blocks, func(int) uint64 { return src.Blocks }},
		{"1 GiB to any address, 4 KiB aligned", src.Blocks, anywhere},
	} {
		l := latency{name: copies.name}
		for i := range o.tokens {
			timings, err := src.OffloadTo(dst, 0, copies.lba(i), copies.blocks)
			if err != nil {
				return err
			}
			l.add(timings)
		}
		rows = append(rows, l)
	}
	provider, err := timeProvider(ctx, dir, o.tokens)
	if err != nil {
		return fmt.Errorf("offload provider: %w", err)
	}
	rows = append(rows, provider...)
	byReading, err := copyByReading(src, dst)
	if err != nil {
		return err
	}
	if err := printLatencies(os.Stdout, rows, byReading); err != nil {
		return err
	}
	f, err := measureFloor(dir, src, o.tokens)
	if err != nil {
		return err
	}
	return printFloor(os.Stdout, f)
}

// copyByReading copies the same data by reading and writing, with 8 outstanding
// commands of 256 KiB, as an initiator without token support does.
func copyByReading(src, dst *tokenclient.Session) (time.Duration, error) {
	a, err := src.CopyTo(dst, 0, 0, src.Blocks)
	if err == nil && !a.Good() {
		err = errors.New(a.String())
	}
	return a.Elapsed, err
}

// latency has the times of many copies of one kind.
type latency struct {
	name                               string
	populate, write, both, inform, all []time.Duration
	tokens, writes                     int
}

func (l *latency) add(t tokenclient.Timings) {
	l.populate = append(l.populate, t.Populate)
	l.write = append(l.write, t.Write)
	l.inform = append(l.inform, t.Information)
	l.both = append(l.both, t.Populate+t.Write)
	l.all = append(l.all, t.Total())
	l.tokens += t.Tokens
	l.writes += t.Writes
}
