package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

const (
	mib       = 1 << 20
	alignment = 4096
)

// bench is a running server and a directory of the host with the same disks.
type bench struct {
	dir    string
	size   int64 // of the disk in bytes
	data   int64 // bytes of data
	target *kit.Target
	random *rand.ChaCha8
}

func (b *bench) host(name string) string { return filepath.Join(b.dir, "host", name) }

// byteRange is a range of a disk in bytes.
type byteRange struct{ off, length int64 }

// prepare creates the input of the operations and starts the server. The caller stops
// it.
func prepare(ctx context.Context, dir, cache string, size int64) (_ *bench, err error) {
	b := &bench{dir: dir, size: size, data: size / 2, random: rand.NewChaCha8([32]byte{6})}
	if err := os.Mkdir(b.host(""), 0o755); err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(6, 1))
	if err := b.writeRaw(spread(r, size, b.data, 64*mib)); err != nil {
		return nil, fmt.Errorf("write the raw disk: %w", err)
	}
	if b.target, err = kit.StartODXWith(ctx, dir, []kit.LUN{{Size: mib}}, kit.Settings{File: map[string]any{"store": map[string]string{"cache": cache}}}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.target.Stop())
		}
	}()
	err = b.odxAll(ctx, []string{
		"file put " + b.host("disk.raw") + " disk.raw",
		"vhd to-volume disk.raw source",
		"vhd convert disk.raw disk.vhdx",
		"vhd snapshot disk.vhdx child.vhdx",
	})
	if err != nil {
		return nil, err
	}
	if err := b.qemu(ctx, "qemu-img", "convert", "-f", "raw", "-O", "vhdx", "disk.raw", "disk.vhdx"); err != nil {
		return nil, err
	}
	changes := spread(r, size, b.data/10, 16*mib)
	if err := b.changeHostChild(ctx, changes); err != nil {
		return nil, fmt.Errorf("change the child on the host: %w", err)
	}
	if err := b.changeChild(ctx, changes); err != nil {
		return nil, fmt.Errorf("change the child in the store: %w", err)
	}
	return b, b.odxAll(ctx, []string{
		"file cp disk.vhdx parts/disk.vhdx", "file cp child.vhdx parts/child.vhdx",
		"vhd merge parts/child.vhdx", "file mv parts/disk.vhdx merged.vhdx",
	})
}

// spread returns ranges of 1 MiB to longest, data bytes in total, with gaps of random
// lengths.
func spread(r *rand.Rand, size, data, longest int64) []byteRange {
	var all []byteRange
	for left := data; left > 0; {
		length := min(left, mib+r.Int64N((longest-mib)/alignment+1)*alignment)
		all = append(all, byteRange{0, length})
		left -= length
	}
	gaps, sum := make([]float64, len(all)+1), 0.0
	for i := range gaps {
		gaps[i] = r.ExpFloat64()
		sum += gaps[i]
	}
	at := int64(0)
	for i := range all {
		at += int64(gaps[i]/sum*float64(size-data)) / alignment * alignment
		all[i].off = at
		at += all[i].length
	}
	return all
}

// writeRaw writes disk.raw on the host.
func (b *bench) writeRaw(data []byteRange) error {
	f, err := os.Create(b.host("disk.raw"))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, e := range data {
		w := bufio.NewWriterSize(io.NewOffsetWriter(f, e.off), mib)
		if _, err := io.CopyN(w, b.random, e.length); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return errors.Join(f.Truncate(b.size), f.Close())
}

// changeHostChild creates child.qcow2 with backing file disk.raw, and writes changes.
func (b *bench) changeHostChild(ctx context.Context, changes []byteRange) error {
	if err := b.qemu(ctx, "qemu-img", "create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "child.qcow2"); err != nil {
		return err
	}
	args := []string{"-f", "qcow2"}
	for i, e := range changes {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+i%255, e.off, e.length))
	}
	return b.qemu(ctx, "qemu-io", append(args, "child.qcow2")...)
}

// changeChild serves child.vhdx as a LUN and writes changes as an initiator.
func (b *bench) changeChild(ctx context.Context, changes []byteRange) error {
	luns := b.target.LUNs
	if err := b.restart(ctx, append(luns[:1:1], kit.LUN{File: "child.vhdx"})); err != nil {
		return err
	}
	if err := b.writeLUN(ctx, b.target.URL(1), changes); err != nil {
		return err
	}
	return b.restart(ctx, luns)
}

func (b *bench) restart(ctx context.Context, luns []kit.LUN) error {
	if err := b.target.Stop(); err != nil {
		return err
	}
	b.target.LUNs = luns
	return b.target.Restart(ctx)
}

func (b *bench) writeLUN(ctx context.Context, url string, changes []byteRange) (err error) {
	c, err := tokenclient.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s, err := c.Open(url, tokenclient.OpenOptions{})
	if err != nil {
		return err
	}
	for _, e := range changes {
		block := int64(s.BlockLength)
		a, err := s.Write(b.random, uint64(e.off/block), uint64(e.length/block), tokenclient.WriteOptions{})
		if err != nil || !a.Good() {
			return fmt.Errorf("%v, %w", a, err)
		}
	}
	return s.Close()
}
