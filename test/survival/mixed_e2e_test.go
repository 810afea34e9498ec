//go:build e2e

package survival

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "odx/initiator"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// kills is how often TestKilledUnderMixedLoad kills the target.
var kills = flag.Int("kills", 50, "how often TestKilledUnderMixedLoad kills the target")

const (
	mixedWorkers = 6
	// Each worker has a part of the disk to itself.
	mixedPart = 2 << 20 / blockLength
	// A round is killed at a random time before this.
	longestMixed = 120 * time.Millisecond
)

// TestKilledUnderMixedLoad kills the target by SIGKILL while several initiators
// write, unmap, write the same, compare and write, copy by token and by EXTENDED
// COPY, reserve and set mode pages, with the write cache on and without a single
// flush. What was acknowledged is there after each restart; a command that was under
// way has happened or not, block by block.
func TestKilledUnderMixedLoad(t *testing.T) {
	harness.RequireODX(t)
	target := harness.Serve(t, kit.LUN{Size: mixedWorkers * mixedPart * blockLength}, kit.LUN{Size: 1 << 20})
	r := rand.New(rand.NewPCG(9, uint64(*kills)))
	workers := newMixedLoad(13)
	settings := &mixedSettings{rng: rand.New(rand.NewPCG(1, 14))}
	for round := range *kills {
		done := make(chan struct{})
		time.AfterFunc(time.Duration(r.Int64N(int64(longestMixed))), func() {
			defer close(done)
			if err := target.Kill(); err != nil {
				t.Error(err)
			}
		})
		wait := workers.start(t.Context(), t, target.URL(0))
		settings.work(t, target.URL(1))
		wait()
		<-done
		workers.restart(t, target, round)
		if err := settings.check(target.URL(1)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("%d kills, %d commands were acknowledged without a flush, none is lost", *kills, settings.acknowledged.Load()+workers.proves(t, *kills))
}

// mixedWorker is an initiator with a part of the disk to itself, one command at a
// time.
type mixedWorker struct {
	number       int
	rng          *rand.Rand
	first        uint64 // block
	m            *model // of its part
	acknowledged atomic.Int64
}

// mixedLoad are the workers of a disk.
type mixedLoad []*mixedWorker

func newMixedLoad(seed uint64) mixedLoad {
	var workers mixedLoad
	for i := range mixedWorkers {
		workers = append(workers, &mixedWorker{
			rng: rand.New(rand.NewPCG(uint64(i), seed)), first: uint64(i) * mixedPart, m: newModel(mixedPart), number: i,
		})
	}
	return workers
}

// start has the workers work until the target or ctx has ended, for which the result waits.
func (l mixedLoad) start(ctx context.Context, t *testing.T, url string) (wait func()) {
	var all sync.WaitGroup
	for _, w := range l {
		all.Go(func() { w.work(ctx, t, url) })
	}
	return all.Wait
}

// restart restarts a target that was killed in a round, and compares what it has.
func (l mixedLoad) restart(t *testing.T, target *kit.Target, round int) {
	t.Helper()
	if err := target.Restart(context.Background()); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	for _, w := range l {
		if err := w.check(target.URL(0)); err != nil {
			t.Fatalf("round %d: blocks from %d on: %v", round, w.first, err)
		}
	}
	if t.Failed() {
		t.Fatalf("round %d", round)
	}
}

// proves returns how many commands were acknowledged, which has to be enough for rounds.
func (l mixedLoad) proves(t *testing.T, rounds int) (acknowledged int64) {
	t.Helper()
	for _, w := range l {
		acknowledged += w.acknowledged.Load()
	}
	if acknowledged < int64(5*rounds) {
		t.Error("too few commands to prove anything")
	}
	return acknowledged
}

// connection is a disk, and a session with it for commands that the disk has no
// method for.
type connection struct {
	*client.Disk
	session *client.Session
}

func (c *connection) Close() {
	// It may have been killed.
	_ = c.session.Close()
	_ = c.Disk.Close()
}

// login logs in; nil when the target was killed before.
func login(url string, name string) *connection {
	u, err := client.ParseURL(url)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	o := client.Options{URL: u, InitiatorName: "iqn.2026-11.example:" + name}
	d, err := client.Open(ctx, o)
	if err != nil {
		return nil
	}
	s, err := client.Dial(ctx, o)
	if err != nil {
		d.Close()
		return nil
	}
	return &connection{d, s}
}

// work does commands until the target or ctx has ended.
func (w *mixedWorker) work(ctx context.Context, t *testing.T, url string) {
	d := login(url, fmt.Sprint("worker", w.number))
	if d == nil {
		return
	}
	defer d.Close()
	for ctx.Err() == nil {
		err := w.step(d)
		if err == nil {
			w.acknowledged.Add(1)
			w.m.flushed() // from here on it must be there
			continue
		}
		if answered(err) {
			t.Errorf("worker %d: the target answered %v", w.number, err)
		}
		return
	}
}

// answered reports whether err is a status, and not a target that has ended.
func answered(err error) bool {
	var sense *client.SenseError
	var status *client.StatusError
	return errors.As(err, &sense) || errors.As(err, &status)
}

func (w *mixedWorker) span() (lba uint64, n int) {
	n = 1 + w.rng.IntN(16)
	if w.rng.IntN(8) == 0 {
		n = 1 + w.rng.IntN(1024)
	}
	lba = w.rng.Uint64N(mixedPart - uint64(n))
	if w.rng.IntN(2) == 0 {
		lba &^= 7
	}
	return lba, n
}

// step does one command.
func (w *mixedWorker) step(d *connection) error {
	ctx := context.Background()
	lba, n := w.span()
	off := func(lba uint64) int64 { return int64(w.first+lba) * blockLength }
	length := int64(n) * blockLength
	switch w.rng.IntN(10) {
	case 0: // UNMAP or WRITE SAME of zeros, as the client likes
		w.m.unmapped(lba, n)
		return d.Zero(ctx, off(lba), length)
	case 1: // WRITE SAME of a block
		v := version{w.m.last + 1, w.first + lba}
		w.m.last++
		s := make([]version, n)
		for i := range s {
			s[i] = v
		}
		w.m.copied(lba, s)
		var block [blockLength]byte
		v.fill(block[:])
		cdb := make([]byte, 16)
		cdb[0] = 0x93
		binary.BigEndian.PutUint64(cdb[2:], w.first+lba)
		binary.BigEndian.PutUint32(cdb[10:], uint32(n))
		return w.do(d, cdb, block[:])
	case 2: // COMPARE AND WRITE
		n = min(n, 8)
		old := make([]byte, n*blockLength)
		for i, v := range w.m.snapshot(lba, n) {
			v.fill(old[i*blockLength : (i+1)*blockLength])
		}
		cdb := make([]byte, 16)
		cdb[0], cdb[13] = 0x89, byte(n)
		binary.BigEndian.PutUint64(cdb[2:], w.first+lba)
		return w.do(d, cdb, append(old, w.write(lba, n)...))
	case 3, 4: // a copy by token
		token, made, err := d.PopulateToken(ctx, off(lba), length)
		if err != nil || made != length {
			return err
		}
		to := w.rng.Uint64N(mixedPart - uint64(n))
		w.m.copied(to, w.m.snapshot(lba, n))
		for done := int64(0); done < length; {
			k, err := d.WriteUsingToken(ctx, token, done, off(to)+done, length-done)
			if err != nil {
				return err
			}
			done += k
		}
		return nil
	case 5: // EXTENDED COPY
		to := w.rng.Uint64N(mixedPart - uint64(n))
		w.m.copied(to, w.m.snapshot(lba, n))
		return w.extendedCopy(d, w.first+lba, w.first+to, n)
	default:
		return d.WriteAt(ctx, w.write(lba, n), off(lba))
	}
}

// write is the model's write; a block of the part says its place on the disk.
func (w *mixedWorker) write(lba uint64, n int) []byte {
	w.m.last++
	data := make([]byte, n*blockLength)
	for i := range uint64(n) {
		v := version{w.m.last, w.first + lba + i}
		w.m.put(lba+i, v)
		v.fill(data[i*blockLength : (i+1)*blockLength])
	}
	return data
}

func (w *mixedWorker) do(d *connection, cdb, out []byte) error {
	return command(d, &client.Command{CDB: cdb, Out: out})
}

// command sends a command again after a unit attention.
func command(d *connection, c *client.Command) error {
	for {
		err := d.session.Do(context.Background(), c)
		var sense *client.SenseError
		if !errors.As(err, &sense) || sense.Key != client.KeyUnitAttention {
			return err
		}
	}
}

// extendedCopy copies within the LUN.
func (w *mixedWorker) extendedCopy(d *connection, from, to uint64, n int) error {
	page, err := d.VPD(context.Background(), 0x83)
	if err != nil {
		return err
	}
	list := make([]byte, 16+32+28)
	list[1], list[3], list[11] = 3<<3, 32, 28
	cscd := list[16:48]
	cscd[0] = 0xE4
	copy(cscd[4:28], page[4:8+page[7]])
	cscd[30], cscd[31] = byte(d.BlockLength>>8), byte(d.BlockLength)
	segment := list[48:]
	segment[0], segment[3] = 0x02, 0x18
	binary.BigEndian.PutUint16(segment[10:], uint16(n))
	binary.BigEndian.PutUint64(segment[12:], from)
	binary.BigEndian.PutUint64(segment[20:], to)
	cdb := make([]byte, 16)
	cdb[0] = 0x83
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
	return w.do(d, cdb, list)
}

// check compares the worker's part with what it knows.
func (w *mixedWorker) check(url string) error {
	d := login(url, "check")
	if d == nil {
		return errors.New("no login after the restart")
	}
	defer d.Close()
	data := make([]byte, mixedPart*blockLength)
	if err := d.ReadAt(context.Background(), data, int64(w.first)*blockLength); err != nil {
		return err
	}
	return w.m.check(data)
}

// mixedSettings are what an initiator keeps at a LUN that is no data: a
// registration with APTPL, and a saved mode page.
type mixedSettings struct {
	rng          *rand.Rand
	key, nextKey uint64
	// descriptor and nextDescriptor are D_SENSE of the control mode page, before
	// and after the command under way.
	descriptor, nextDescriptor bool
	acknowledged               atomic.Int64
}

func (s *mixedSettings) work(t *testing.T, url string) {
	d := login(url, "settings")
	if d == nil {
		return
	}
	defer d.Close()
	for {
		err := s.step(d)
		if err == nil {
			s.acknowledged.Add(1)
			s.key, s.descriptor = s.nextKey, s.nextDescriptor
			continue
		}
		if answered(err) {
			t.Errorf("settings: the target answered %v", err)
		}
		return
	}
}

func (s *mixedSettings) step(d *connection) error {
	if s.rng.IntN(2) == 0 {
		s.nextKey = 1 + s.rng.Uint64N(1<<40)
		return reserveOut(d, registerAndIgnore, 0, s.nextKey)
	}
	page, err := s.controlPage(d)
	if err != nil {
		return err
	}
	s.nextDescriptor = !s.descriptor
	page[0], page[2], page[4] = 0, 0, page[4]&0x3f
	if page[6] &^= 0x04; s.nextDescriptor {
		page[6] |= 0x04
	}
	return command(d, &client.Command{CDB: []byte{0x15, 0x11, 0, 0, byte(len(page)), 0}, Out: page})
}

// Service actions of PERSISTENT RESERVE OUT.
const (
	clearKeys         = 3
	registerAndIgnore = 6
)

func reserveOut(d *connection, action byte, key, actionKey uint64) error {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], actionKey)
	list[20] = 1 // APTPL
	if action == clearKeys {
		list[20] = 0
	}
	return command(d, &client.Command{CDB: []byte{0x5f, action, 0, 0, 0, 0, 0, 0, 24, 0}, Out: list})
}

func (s *mixedSettings) controlPage(d *connection) ([]byte, error) {
	c := &client.Command{CDB: []byte{0x1a, 0x08, 0x0a, 0, 255, 0}, In: make([]byte, 255)}
	err := command(d, c)
	return c.In[:c.Received], err
}

func (s *mixedSettings) check(url string) error {
	d := login(url, "settings")
	if d == nil {
		return errors.New("no login after the restart")
	}
	defer d.Close()
	page, err := s.controlPage(d)
	if err != nil {
		return err
	}
	found := page[6]&0x04 != 0
	if found != s.descriptor && found != s.nextDescriptor {
		return fmt.Errorf("D_SENSE is %v, was %v", found, s.descriptor)
	}
	c := &client.Command{CDB: []byte{0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0}, In: make([]byte, 255)}
	if err := command(d, c); err != nil {
		return err
	}
	var key uint64
	if c.Received >= 16 {
		key = binary.BigEndian.Uint64(c.In[8:])
	}
	if c.Received > 16 || key != s.key && key != s.nextKey {
		return fmt.Errorf("registered keys % x, was %x, then %x", c.In[8:c.Received], s.key, s.nextKey)
	}
	s.key, s.nextKey, s.descriptor, s.nextDescriptor = 0, 0, found, found
	// Each session is a new nexus: it begins without the key of the last one.
	const own = 1
	if err := reserveOut(d, registerAndIgnore, 0, own); err != nil {
		return err
	}
	return reserveOut(d, clearKeys, own, 0)
}
