//go:build rados

package ceph_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/backstore/meta/pebblekv"
	"odx/backstore/vfs/rados"
	"odx/backstore/vfs/rados/librados"
	"odx/internal/kit/ceph"
	"odx/internal/kit/must"
	"odx/owner"
)

const (
	dir        = "/store"
	volume     = "v"
	blocks     = 64
	blockBytes = 4096
)

// writerEnv has, for a process that is to be the writer, how the pool is reached.
const writerEnv = "ODX_TEST_POOL_WRITER"

var cluster *ceph.Cluster

func TestMain(m *testing.M) {
	if how := os.Getenv(writerEnv); how != "" {
		if err := write(strings.Split(how, "\n")); err != nil {
			text := err.Error()
			fmt.Printf("error %t %.300q, %d bytes\n", errors.Is(err, owner.ErrLost), text, len(text))
			os.Exit(1)
		}
		return
	}
	os.Exit(ceph.Main(m, ceph.Options{OSDs: 2}, func(c *ceph.Cluster) { cluster = c }))
}

// reach returns how the pool of a test is reached.
func reach(t *testing.T) librados.Options {
	return librados.Options{Conf: cluster.Conf(), User: cluster.User(), Keyring: cluster.Keyring(), Pool: cluster.Pool(), Namespace: t.Name(), Timeout: 8 * time.Second}
}

// claim waits for the store, and returns how it is opened.
func claim(o librados.Options) (*librados.Pool, backstore.Options, error) {
	pool, err := librados.Open(o)
	if err != nil {
		return nil, backstore.Options{}, err
	}
	fsys := rados.New(pool)
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, backstore.Options{}, err
	}
	claimed, err := owner.Wait(context.Background(), fsys.Owner(dir))
	l := logrus.New()
	l.SetOutput(os.Stderr)
	l.SetLevel(logrus.WarnLevel)
	return pool, backstore.Options{
		Dir: dir, FS: fsys, Owner: claimed, Engine: pebblekv.Engine(), CacheBytes: 64 << 20, Shared: true, Log: logrus.NewEntry(l),
	}, err
}

// open waits for the store and opens it.
func open(o librados.Options) (*backstore.Store, *librados.Pool, error) {
	pool, options, err := claim(o)
	if err != nil {
		return nil, nil, err
	}
	s, err := backstore.Open(context.Background(), options)
	return s, pool, err
}

// write is the process that owns the store: it writes number after number, each to a block
// and durably, and says so.
func write(how []string) error {
	s, _, err := open(librados.Options{Conf: how[0], User: how[1], Keyring: how[2], Pool: how[3], Namespace: how[4], Timeout: 8 * time.Second})
	if err != nil {
		return err
	}
	v, err := s.Volume(volume)
	if errors.Is(err, backstore.ErrNotFound) {
		v, err = s.CreateVolume(context.Background(), volume, blocks*blockBytes)
	}
	if err != nil {
		return err
	}
	first, err := strconv.ParseUint(how[5], 10, 64)
	if err != nil {
		return err
	}
	for n := first; ; n++ {
		p := make([]byte, blockBytes)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], n)
		}
		err := v.WriteAt(context.Background(), p, int64(n%blocks)*blockBytes)
		if err == nil {
			err = s.Flush(context.Background())
		}
		if err == nil {
			err = s.Owned()
		}
		if err != nil {
			return err
		}
		fmt.Println("ack", n)
	}
}

// writer is a process that writes.
type writer struct {
	cmd   *exec.Cmd
	acked chan uint64 // closed when it ends
	last  uint64      // the last one that was acknowledged
	first uint64
	said  chan string // what it says of its end
}

func startWriter(t *testing.T, o librados.Options, first uint64) *writer {
	t.Helper()
	w := &writer{cmd: exec.Command(os.Args[0]), acked: make(chan uint64, 1<<16), first: first, last: first - 1, said: make(chan string, 1)}
	w.cmd.Env = append(os.Environ(), writerEnv+"="+strings.Join([]string{o.Conf, o.User, o.Keyring, o.Pool, o.Namespace, fmt.Sprint(first)}, "\n"))
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	must.Succeed(t, errors.Join(err, w.cmd.Start()))
	go func() {
		defer close(w.acked)
		defer close(w.said)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if n, ok := strings.CutPrefix(lines.Text(), "ack "); ok {
				number, _ := strconv.ParseUint(n, 10, 64)
				w.acked <- number
			} else {
				select {
				case w.said <- lines.Text():
				default: // further lines of the error
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // it has ended already
		w.drain()
		_ = w.cmd.Wait() // killed
	})
	return w
}

// await waits until so many numbers were acknowledged.
func (w *writer) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case number, ok := <-w.acked:
			if !ok {
				t.Fatalf("the writer has ended: %s", <-w.said)
			}
			w.last = number
		case <-time.After(time.Minute):
			t.Fatal("nothing is acknowledged for a minute")
		}
	}
}

// drain takes what was acknowledged until the process ended.
func (w *writer) drain() {
	for number := range w.acked {
		w.last = number
	}
}

// holds proves that the store has every number that was acknowledged: a block has the last one
// that was written to it, or the one that was on its way.
func holds(t *testing.T, s *backstore.Store, last uint64) {
	t.Helper()
	v, err := s.Volume(volume)
	must.Succeed(t, err)
	p := make([]byte, blocks*blockBytes)
	must.Succeed(t, v.ReadAt(t.Context(), p, 0))
	for b := range uint64(blocks) {
		got := binary.LittleEndian.Uint64(p[b*blockBytes:])
		want := last - (last-b+blocks)%blocks // the last number ≤ last of this block
		if got != want && got != last+1 {
			t.Errorf("block %d has number %d, want %d: acknowledged were those up to %d", b, got, want, last)
		}
	}
	findings, err := s.Check(t.Context())
	if err != nil || len(findings) > 0 {
		t.Errorf("check: %v %v", findings, err)
	}
}

// TestStore_OwnerKilled kills the owner again and again; its successor has every write that
// was acknowledged.
func TestStore_OwnerKilled(t *testing.T) {
	o := reach(t)
	next := uint64(1000)
	var gaps []time.Duration
	for round := range 3 {
		w := startWriter(t, o, next)
		w.await(t, 300)
		must.Succeed(t, w.cmd.Process.Kill())
		killed := time.Now()
		s, pool, err := open(o)
		must.Succeed(t, err)
		gaps = append(gaps, time.Since(killed).Round(time.Millisecond))
		w.drain()
		if w.last < w.first+100 {
			t.Errorf("round %d: only numbers up to %d were acknowledged", round, w.last)
		}
		holds(t, s, w.last)
		must.Succeed(t, errors.Join(s.Close(), pool.Close()))
		next = w.last + 1
	}
	slices.Sort(gaps)
	t.Logf("from the kill to a store that answers: %v", gaps)
}

// TestStore_OwnerPaused stops the owner for longer than its lock lasts. When it goes on it
// acknowledges nothing, ends, and changes nothing of its successor's store.
func TestStore_OwnerPaused(t *testing.T) {
	o := reach(t)
	w := startWriter(t, o, 1000)
	w.await(t, 200)
	must.Succeed(t, w.cmd.Process.Signal(syscall.SIGSTOP))
	s, pool, err := open(o)
	must.Succeed(t, err)
	// What it said before it was stopped is in the pipe.
	for len(w.acked) > 0 {
		w.last = <-w.acked
	}
	before := w.last
	must.Succeed(t, w.cmd.Process.Signal(syscall.SIGCONT))
	w.drain()
	if w.last != before {
		t.Errorf("the first owner acknowledged %d after it had lost the store at %d", w.last, before)
	}
	said := <-w.said
	if !strings.HasPrefix(said, "error true") {
		t.Errorf("the first owner ends with %q, %v", said, w.cmd.Wait())
	}
	t.Logf("the first owner ends with %s", said)
	holds(t, s, before)
	must.Succeed(t, errors.Join(s.Close(), pool.Close()))
	s, pool, err = open(o)
	must.Succeed(t, err)
	holds(t, s, before)
	must.Succeed(t, errors.Join(s.Close(), pool.Close()))
}

// BenchmarkFlush writes and flushes 4 KiB at a time.
func BenchmarkFlush(b *testing.B) {
	o := librados.Options{Conf: cluster.Conf(), User: cluster.User(), Keyring: cluster.Keyring(), Pool: cluster.Pool(), Namespace: b.Name() + fmt.Sprint(b.N), Timeout: 8 * time.Second}
	s, pool, err := open(o)
	must.Succeed(b, err)
	v, err := s.CreateVolume(b.Context(), volume, 64<<20)
	must.Succeed(b, err)
	p := make([]byte, blockBytes)
	n := uint64(0)
	for b.Loop() {
		n++
		binary.LittleEndian.PutUint64(p, n)
		must.Succeed(b, v.WriteAt(b.Context(), p, int64(n%1024)*blockBytes))
		must.Succeed(b, s.Flush(b.Context()))
	}
	must.Succeed(b, errors.Join(s.Close(), pool.Close()))
}
