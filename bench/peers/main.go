// Command peers measures copies by token from one server to another: each odx has a store
// and a host of its own (network namespaces on one machine). On a link of 1 Gbit/s it
// compares with plain TCP in the same run, on an unlimited one with the rate at which the
// destination takes writes over iSCSI, without and with a SYNCHRONIZE CACHE after as many
// bytes, since a copy by token is durable; then the destination has the data already. It
// prints what the servers use of the processors too. It needs root, and says so where it
// cannot measure.
//
// usage: go run ./bench/peers [-size 256MiB] [-runs 5] [-shaped=false] [-dir DIR]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"odx/bench/load"
	"odx/internal/kit"
	"odx/internal/kit/cluster"
	"odx/internal/kit/netns"
	"odx/internal/kit/tokenclient"
)

const (
	gigabit = 1e9 // bits a second
	// loadTime is how long writes over iSCSI are measured in each run.
	loadTime = 2 * time.Second
)

func main() {
	size := flag.String("size", "256MiB", "bytes of a token")
	runs := flag.Int("runs", 5, "repetitions; medians are printed")
	dir := flag.String("dir", "", "directory for the data, six times as much (default: the system's temporary directory)")
	shaped := flag.Bool("shaped", true, "measure the link of 1 Gbit/s too")
	flag.Parse()
	if err := netns.Check(); err != nil {
		fmt.Println("copies between servers are not measured:", err)
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := measure(ctx, *size, *dir, *runs, *shaped); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// bench is two servers, a LUN of each, and the data of a token.
type bench struct {
	a, b     *cluster.Server
	from, to *tokenclient.Session
	shaped   bool
	data     []byte
	rng      *rand.ChaCha8
}

// result is what one run measured.
type result struct {
	plain, shaped    time.Duration // on a link of 1 Gbit/s: TCP, by token
	free, known      time.Duration // by token on an unlimited link: new data, and data that is there
	written, durable float64       // bytes a second that the destination takes over iSCSI, without and with flushes
	// Processor time of the servers: for the token in free, and for as many bytes over iSCSI.
	source, destination, local time.Duration
	crossed, crossedBy         int64 // bytes on the wire for new data, and for known data
}

func measure(ctx context.Context, size, dir string, runs int, shaped bool) (err error) {
	length, err := humanize.ParseBytes(size)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "odx-peers"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	luns := []kit.LUN{{Size: int64(2 * length)}, {Size: int64(length)}}
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, LUNs: luns}, "a", "b")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := c.Introduce(ctx); err != nil {
		return err
	}
	client, err := tokenclient.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	m := &bench{a: c.Servers[0], b: c.Servers[1], shaped: shaped, data: make([]byte, length), rng: rand.NewChaCha8([32]byte{1})}
	if m.from, err = client.Open(m.a.URL(0), tokenclient.OpenOptions{}); err != nil {
		return err
	}
	if m.to, err = client.Open(m.b.URL(0), tokenclient.OpenOptions{}); err != nil {
		return err
	}
	var results []result
	failed := 0
	for len(results) < runs {
		r, err := m.run(ctx)
		if err == nil {
			results = append(results, r)
			continue
		}
		if failed++; failed > runs || ctx.Err() != nil {
			return err
		}
		// A machine that is busy otherwise lets a copy be refused: that is said, not hidden.
		fmt.Fprintf(os.Stderr, "peers: a run failed and is repeated: %v\n%s", err, c.Log(2))
	}
	m.print(results)
	return nil
}

// run measures everything once.
func (m *bench) run(ctx context.Context) (r result, err error) {
	if m.shaped {
		if err := m.runShaped(&r); err != nil {
			return r, err
		}
	}
	var written load.Result
	if r.local, err = used(m.b, func() (err error) {
		written, err = load.Run(ctx, m.b.URL(1), "write", 1<<20, 8, loadTime)
		return err
	}); err != nil {
		return r, err
	}
	r.written = written.Rate() * (1 << 20)
	flushed, err := load.Run(ctx, m.b.URL(1), "write", 1<<20, 8, loadTime, fmt.Sprintf("flush=%d", len(m.data)>>20))
	if err != nil {
		return r, err
	}
	r.durable = flushed.Rate() * (1 << 20)
	r.local = time.Duration(float64(r.local) * float64(len(m.data)) / (float64(written.Commands) * (1 << 20)))
	token, err := m.token()
	if err != nil {
		return r, err
	}
	r.crossed, err = crossed(m.b.Host, func() (err error) {
		r.source, err = used(m.a, func() (err error) {
			r.destination, err = used(m.b, func() (err error) {
				r.free, err = m.copy(token, 0)
				return err
			})
			return err
		})
		return err
	})
	if err != nil {
		return r, err
	}
	r.crossedBy, err = crossed(m.b.Host, func() (err error) {
		r.known, err = m.copy(token, 1)
		return err
	})
	return r, err
}

// runShaped measures on a link of 1 Gbit/s.
func (m *bench) runShaped(r *result) (err error) {
	if err := m.a.Host.Rate(gigabit); err != nil {
		return err
	}
	if r.plain, err = m.tcp(); err != nil {
		return fmt.Errorf("plain TCP: %w", err)
	}
	token, err := m.token()
	if err != nil {
		return err
	}
	if r.shaped, err = m.copy(token, 0); err != nil {
		return err
	}
	return m.a.Host.Rate(0)
}

// used returns the processor time of a server while fn runs, in steps of 10 ms.
func used(s *cluster.Server, fn func() error) (time.Duration, error) {
	before, err := s.ProcessorTime()
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := s.ProcessorTime()
	return after - before, err
}

// token writes new data to the source and makes a token for it.
func (m *bench) token() ([]byte, error) {
	if _, err := m.rng.Read(m.data); err != nil {
		return nil, err
	}
	blocks := uint64(len(m.data) / m.from.BlockLength)
	a, err := m.from.Write(bytes.NewReader(m.data), 0, blocks, tokenclient.WriteOptions{})
	if err != nil || !a.Good() {
		return nil, fmt.Errorf("write: %v, %w", a, err)
	}
	return m.from.Token(tokenclient.Range{Blocks: uint32(blocks)})
}

// copy writes a token to one half of the destination, and returns how long its commands took.
func (m *bench) copy(token []byte, half uint64) (time.Duration, error) {
	blocks := uint64(len(m.data) / m.to.BlockLength)
	t, err := m.to.Spend(token, tokenclient.Range{LBA: half * blocks, Blocks: uint32(blocks)})
	return t.Write, err
}

// tcp is how long the data takes over a TCP connection from the source's host to the
// destination's, until the last byte is there.
func (m *bench) tcp() (took time.Duration, err error) {
	var l net.Listener
	address := net.JoinHostPort(m.b.Host.Address.String(), "9")
	if err := m.b.Host.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		return 0, err
	}
	defer l.Close()
	var c net.Conn
	if err := m.a.Host.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", address, 10*time.Second)
		return err
	}); err != nil {
		return 0, err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(m.data)
		sent <- err
	}()
	n, err := io.CopyN(io.Discard, s, int64(len(m.data)))
	took = time.Since(began)
	if err := errors.Join(err, <-sent); err != nil {
		return 0, fmt.Errorf("%d bytes: %w", n, err)
	}
	return took, nil
}

// crossed returns how many bytes a host sends and gets while fn runs.
func crossed(h *netns.Host, fn func() error) (int64, error) {
	sent, received, err := h.Bytes()
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	sent2, received2, err := h.Bytes()
	return sent2 + received2 - sent - received, err
}

func (m *bench) print(results []result) {
	size := float64(len(m.data))
	fmt.Printf("%s by token from one server to another, median of %d runs\n\n", humanize.IBytes(uint64(len(m.data))), len(results))
	fmt.Printf("| what | time | rate | |\n|---|---|---|---|\n")
	row := func(what string, took time.Duration, note string) {
		fmt.Printf("| %s | %v | %.0f MiB/s | %s |\n", what, took.Round(time.Millisecond/10), size/(1<<20)/took.Seconds(), note)
	}
	duration := func(of func(result) time.Duration) time.Duration { return median(results, of) }
	if m.shaped {
		ratio := median(results, func(r result) float64 { return r.shaped.Seconds() / r.plain.Seconds() })
		row("1 Gbit/s, plain TCP", duration(func(r result) time.Duration { return r.plain }), "")
		row("1 Gbit/s, by token", duration(func(r result) time.Duration { return r.shaped }), fmt.Sprintf("%.2f × the time of plain TCP", ratio))
	}
	local := median(results, func(r result) float64 { return r.written })
	durable := median(results, func(r result) float64 { return r.durable })
	share := median(results, func(r result) float64 { return size / r.free.Seconds() / r.written })
	durableShare := median(results, func(r result) float64 { return size / r.free.Seconds() / r.durable })
	fmt.Printf("| unlimited, writes of 1 MiB to the destination over iSCSI | | %.0f MiB/s | processor time for as many bytes: %v |\n", local/(1<<20), duration(func(r result) time.Duration { return r.local }).Round(10*time.Millisecond))
	fmt.Printf("| unlimited, the same, durable after as many bytes | | %.0f MiB/s | |\n", durable/(1<<20))
	row("unlimited, by token", duration(func(r result) time.Duration { return r.free }), fmt.Sprintf("%.2f × the rate of iSCSI writes, %.2f × that of durable ones; processor time: destination %v, source %v; %s on the wire",
		share, durableShare, duration(func(r result) time.Duration { return r.destination }), duration(func(r result) time.Duration { return r.source }), humanize.IBytes(uint64(median(results, func(r result) int64 { return r.crossed })))))
	row("unlimited, the destination has the data", duration(func(r result) time.Duration { return r.known }),
		humanize.IBytes(uint64(median(results, func(r result) int64 { return r.crossedBy })))+" on the wire")
}

func median[T int64 | float64 | time.Duration](results []result, of func(result) T) T {
	var list []T
	for _, r := range results {
		list = append(list, of(r))
	}
	slices.Sort(list)
	return list[len(list)/2]
}
