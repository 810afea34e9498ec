// Command dedup measures the effect of the dedup unit: for each unit it writes disk
// images to a new store, and prints a Markdown table of the dedup ratio, the throughput,
// the metadata and the memory of the index.
//
// usage: go run ./bench/dedup [-dir DIR] IMAGE...
//
// Each image is written to a volume, and to a second one shifted by 4 KiB, like a
// partition with another alignment.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/backstore/dedup"
)

const shift = 4096

func main() {
	dir := flag.String("dir", "", "directory for the stores (default: the system's temporary directory)")
	flag.Parse()
	if err := run(*dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dedup:", err)
		os.Exit(1)
	}
}

func run(dir string, images []string) error {
	if len(images) == 0 {
		return errors.New("no image file given")
	}
	fmt.Println("| dedup unit | ratio of the images | ratio with shifted copies | write MiB/s | equal image again MiB/s | metadata MiB per GiB live | index MiB per TiB live |")
	fmt.Println("|---:|---:|---:|---:|---:|---:|---:|")
	for _, unit := range []int{4, 8, 16, 32, 64} {
		tmp, err := os.MkdirTemp(dir, "odx-dedup-")
		if err != nil {
			return err
		}
		err = measure(tmp, unit<<10, images)
		os.RemoveAll(tmp)
		if err != nil {
			return fmt.Errorf("dedup unit of %d KiB: %w", unit, err)
		}
	}
	return nil
}

// measure prints the row of a dedup unit.
func measure(dir string, unit int, images []string) error {
	ctx := context.Background()
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := backstore.Open(ctx, backstore.Options{Dir: dir, DedupUnit: unit, Log: logrus.NewEntry(log)})
	if err != nil {
		return err
	}
	defer s.Close()
	first, err := writeAll(ctx, s, images, "first", 0)
	if err != nil {
		return err
	}
	plain, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	again, err := writeAll(ctx, s, images, "again", 0)
	if err != nil {
		return err
	}
	if _, err := writeAll(ctx, s, images, "shifted", shift); err != nil {
		return err
	}
	mapped := float64(plain.LogicalBytes) / (1 << 20) // without holes
	all, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	m, err := s.Metadata(ctx)
	if err != nil {
		return err
	}
	perGiB := float64(m.Bytes) / float64(all.LiveBytes) * (1 << 10)
	index := float64(m.Extents) / float64(all.LiveBytes) * dedup.BytesPerEntry * (1 << 20)
	// The ratio with shifted copies does not count the second, identical copies.
	shifted := float64(all.LogicalBytes-plain.LogicalBytes) / float64(all.LiveBytes)
	fmt.Printf("| %d KiB | %.2f | %.2f | %.0f | %.0f | %.1f | %.0f |\n", unit>>10, plain.DedupRatio, shifted, mapped/first.Seconds(), mapped/again.Seconds(), perGiB, index)
	return nil
}

// writeAll writes each image to its own volume, flushes, and returns the duration
// without the time to read the images.
func writeAll(ctx context.Context, s *backstore.Store, images []string, name string, shift int64) (took time.Duration, err error) {
	for i, image := range images {
		d, err := writeImage(ctx, s, image, fmt.Sprintf("%s %d", name, i), shift)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", image, err)
		}
		took += d
	}
	start := time.Now()
	err = s.Flush(ctx)
	return took + time.Since(start), err
}

func writeImage(ctx context.Context, s *backstore.Store, image, name string, shift int64) (took time.Duration, err error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	v, err := s.CreateVolume(ctx, name, (info.Size()+shift+4095)&^4095)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < info.Size(); {
		n, err := f.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		start := time.Now()
		if err := v.WriteAt(ctx, buf[:n], off+shift); err != nil {
			return 0, err
		}
		took += time.Since(start)
		off += int64(n)
	}
	return took, nil
}
