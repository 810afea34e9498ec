package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"odx/internal/kit"
	"odx/internal/kit/tokenclient"
)

// demo is a target with two LUNs; the second has room for two copies.
type demo struct {
	options
	target *kit.Target
	client *tokenclient.Client
	blocks uint64
	want   []byte // checksum of what was written
}

// cost is what something took.
type cost struct {
	elapsed time.Duration
	wire    int64 // bytes that TCP carried, both ways
	note    string
}

func run(ctx context.Context, o options) (err error) {
	if o.size <= 0 || o.size%(1<<20) != 0 {
		return fmt.Errorf("size %d is not a number of MiB", o.size)
	}
	d := &demo{options: o}
	fmt.Fprintln(o.out, "starting odx with two LUNs on a free port")
	d.target, err = kit.StartODX(ctx, o.dir, []kit.LUN{{Size: o.size}, {Size: 2 * o.size}})
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := d.target.Stop(); stopErr != nil || err != nil {
			err = errors.Join(err, stopErr, fmt.Errorf("the target said:\n%s", d.target.LogTail(50)))
		}
	}()
	if o.started != nil {
		stop, startErr := o.started(d.target.Port())
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if d.client, err = tokenclient.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.client.Close()) }()
	return d.show()
}

func (d *demo) show() error {
	src, dst, err := d.login()
	if err != nil {
		return err
	}
	d.blocks = uint64(d.size) / uint64(src.BlockLength)
	written, err := measure(func() (string, error) { return "", d.write(src) }, src)
	if err != nil {
		return err
	}
	byHand, err := measure(func() (string, error) {
		a, err := src.CopyTo(dst, 0, 0, d.blocks)
		return "", mustBeGood(a, err)
	}, src, dst)
	if err != nil {
		return fmt.Errorf("copy by reading and writing: %w", err)
	}
	byToken, err := measure(func() (string, error) {
		t, err := src.OffloadTo(dst, 0, d.blocks, d.blocks)
		return fmt.Sprintf("%s, %s", count(t.Tokens, "token"), count(t.Writes, "write")), err
	}, src, dst)
	if err != nil {
		return fmt.Errorf("copy by token: %w", err)
	}
	w := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\n%s\ttime\tbytes on the wire\t\n", humanize.IBytes(uint64(d.size)))
	for _, row := range []struct {
		name string
		cost
	}{{"written to the first LUN", written}, {"copied by reading and writing", byHand}, {"copied by token", byToken}} {
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\n", row.name, rounded(row.elapsed), humanize.IBytes(uint64(row.wire)), row.note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	return errors.Join(d.verify("the copy by reading and writing", 0), d.verify("the copy by token", d.blocks))
}

func (d *demo) login() (src, dst *tokenclient.Session, err error) {
	if src, err = d.client.Open(d.target.URL(0), tokenclient.OpenOptions{}); err != nil {
		return nil, nil, err
	}
	dst, err = d.client.Open(d.target.URL(1), tokenclient.OpenOptions{})
	return src, dst, err
}

// write fills the first LUN with random data and makes it durable.
func (d *demo) write(src *tokenclient.Session) error {
	sum := sha256.New()
	data := io.TeeReader(rand.NewChaCha8([32]byte([]byte("a token stands for a range as is"))), sum)
	// 1 MiB is more than may be sent before the target asks for it.
	o := tokenclient.WriteOptions{Chunk: 1 << 20 / src.BlockLength}
	if err := mustBeGood(src.Write(data, 0, d.blocks, o)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	d.want = sum.Sum(nil)
	return mustBeGood(src.Flush())
}

// verify reads a copy back in a session of its own.
func (d *demo) verify(what string, lba uint64) error {
	s, err := d.client.Open(d.target.URL(1), tokenclient.OpenOptions{})
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := mustBeGood(s.Read(sum, lba, d.blocks)); err != nil {
		return fmt.Errorf("read %s back: %w", what, err)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, d.want) {
		return fmt.Errorf("%s has SHA-256 %x, what was written has %x", what, got, d.want)
	}
	fmt.Fprintf(d.out, "read back: %s has SHA-256 %.8x..., that of what was written\n", what, d.want)
	return s.Close()
}

// measure calls f and counts what the sessions transferred during it.
func measure(f func() (string, error), sessions ...*tokenclient.Session) (cost, error) {
	before, err := wire(sessions)
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	note, err := f()
	if err != nil {
		return cost{}, err
	}
	elapsed := time.Since(start)
	after, err := wire(sessions)
	return cost{elapsed, after - before, note}, err
}

func wire(sessions []*tokenclient.Session) (total int64, err error) {
	for _, s := range sessions {
		sent, received, err := s.Wire()
		if err != nil {
			return 0, err
		}
		total += sent + received
	}
	return total, nil
}

// mustBeGood turns an answer that is not Good into an error.
func mustBeGood(a tokenclient.Answer, err error) error {
	if err == nil && !a.Good() {
		err = errors.New(a.String())
	}
	return err
}

func rounded(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
