package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"odx/blockdev"
	"odx/target/bufpool"
	"odx/target/scsi/sense"
)

// memVolume is a Volume in memory that panics when it is accessed outside its
// size, which the device server has to rule out.
type memVolume struct {
	flushes atomic.Int64
	fail    atomic.Pointer[error] // what every access returns, if set

	mu   sync.RWMutex
	data []byte
}

func newMemVolume(size int) *memVolume { return &memVolume{data: make([]byte, size)} }

func (v *memVolume) setError(err error) { v.fail.Store(&err) }

func (v *memVolume) check(off, length int64) error {
	if err := v.fail.Load(); err != nil {
		return *err
	}
	if off < 0 || length < 0 || off > int64(len(v.data)) || length > int64(len(v.data))-off {
		panic(fmt.Sprintf("access of %d bytes at %d to a volume of %d", length, off, len(v.data)))
	}
	return nil
}

func (v *memVolume) Size() int64 { return int64(len(v.data)) }

func (v *memVolume) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := v.check(off, int64(len(p))); err != nil {
		return err
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	copy(p, v.data[off:])
	return nil
}

func (v *memVolume) WriteAt(_ context.Context, p []byte, off int64) error {
	if err := v.check(off, int64(len(p))); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	copy(v.data[off:], p)
	return nil
}

func (v *memVolume) Unmap(_ context.Context, off, length int64) error {
	if err := v.check(off, length); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.data[off : off+length])
	return nil
}

func (v *memVolume) Flush(context.Context) error {
	v.flushes.Add(1)
	return v.check(0, 0)
}

func (v *memVolume) CompareAndWrite(_ context.Context, compare, p []byte, off int64) (int, error) {
	if err := v.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, b := range compare {
		if v.data[int(off)+i] != b {
			return i, nil
		}
	}
	copy(v.data[off:], p)
	return -1, nil
}

func (v *memVolume) Update(_ context.Context, off int64, length int, fn func(data []byte)) error {
	if err := v.check(off, int64(length)); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	fn(v.data[off:][:length])
	return nil
}

func (v *memVolume) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	if off%blockdev.BlockLength != 0 || len(p)%blockdev.BlockLength != 0 || len(p) > blockdev.MaximumAtomicWrite {
		panic(fmt.Sprintf("atomic write of %d bytes at %d", len(p), off))
	}
	return v.WriteAt(ctx, p, off)
}

// plainVolume hides what a volume can do beyond reading and writing.
type plainVolume struct{ blockdev.Volume }

// testID is an identity whose digits are distinguishable in designators.
var testID = [16]byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10}

// fixture is a target with one logical unit at LUN 0 and one nexus, whose power
// on unit attention is taken.
type fixture struct {
	t      testing.TB
	target *Target
	lu     *LogicalUnit
	vol    *memVolume
	nexus  *Nexus
	pool   bufpool.Pool
}

const testBlocks = 4096

func newFixture(t testing.TB, change ...func(*LUConfig)) *fixture {
	t.Helper()
	f := &fixture{t: t, vol: newMemVolume(testBlocks * 512)}
	c := LUConfig{Volume: f.vol, ID: testID, Thin: true}
	for _, fn := range change {
		fn(&c)
	}
	lu, err := NewLogicalUnit(c)
	if err != nil {
		t.Fatal(err)
	}
	f.lu = lu
	f.target = NewTarget(TargetConfig{Name: "iqn.2026-11.example.odx:disks"})
	if err := f.target.AddLU(0, lu); err != nil {
		t.Fatal(err)
	}
	f.nexus = f.attach("iqn.2026-11.example.initiator:a")
	return f
}

// attach opens a nexus and takes its power on unit attention.
func (f *fixture) attach(initiator string) *Nexus {
	f.t.Helper()
	n := f.target.Attach(NexusID{InitiatorName: initiator, TargetName: f.target.Name(), TargetPortalGroupTag: 1})
	for _, itl := range *n.units.Load() {
		if se := itl.takePending(); se == nil || se.ASC != sense.ASCPowerOnOrReset {
			f.t.Fatalf("new nexus: attention %v, want power on", se)
		}
	}
	return n
}

// result is what a command ended with.
type result struct {
	status byte
	key    sense.Key
	asc    sense.ASC
	sense  []byte
	data   []byte
	wanted uint32
}

// request is a command on its way.
type request struct {
	nexus       *Nexus
	lun         [8]byte
	cdb         []byte
	out         []byte
	expectedOut int // -1: as long as out
	// unsettled is what the transport finds afterwards when it settles what the
	// command changed.
	unsettled error
}

func (f *fixture) run(r request) result {
	f.t.Helper()
	task := NewTask(&f.pool)
	defer task.Release()
	task.Reset(r.nexus, r.cdb)
	task.Lun = r.lun
	task.ExpectedOut = uint32(r.expectedOut)
	if r.expectedOut < 0 {
		task.ExpectedOut = uint32(len(r.out))
	}
	task.ExpectedIn = 1<<32 - 1
	task.Result = 0xFF
	var received []byte
	if !f.target.Prepare(task) {
		received = f.execute(task, r.out)
		if r.unsettled != nil {
			task.Unsettled(r.unsettled)
		}
	}
	res := result{status: task.Result, sense: bytes.Clone(task.Sense()), data: append(received, task.DataIn()...), wanted: task.Wanted}
	if task.Result == StatusCheckCondition {
		res.key, res.asc = decodeSense(f.t, res.sense)
	}
	return res
}

// execute runs a task with Data-Out as a transport does: in pieces, if it is streamed.
// It returns the Data-In of all pieces but the last.
func (f *fixture) execute(task *Task, out []byte) (received []byte) {
	left := int(min(task.Wanted, task.ExpectedOut))
	for again := true; again; again = task.More() {
		received = append(received, task.DataIn()...)
		if task.Wanted > 0 {
			n := left
			if task.Streamed() {
				n = min(n, StreamPiece)
			}
			p := task.AllocDataOut(n)
			clear(p[copy(p, out):])
			out, left = out[min(n, len(out)):], left-n
		}
		f.target.Execute(context.Background(), task)
	}
	return received
}

// do runs a command on the fixture's nexus and LUN 0.
func (f *fixture) do(cdb, out []byte) result {
	f.t.Helper()
	return f.run(request{nexus: f.nexus, cdb: cdb, out: out, expectedOut: -1})
}

// on runs a command without Data-Out on another nexus.
func (f *fixture) on(n *Nexus, cdb []byte) result {
	f.t.Helper()
	return f.run(request{nexus: n, cdb: cdb})
}

// good runs a command that has to end with GOOD and returns its Data-In.
func (f *fixture) good(cdb, out []byte) []byte {
	f.t.Helper()
	r := f.do(cdb, out)
	if r.status != StatusGood {
		f.t.Fatalf("CDB % x: status %02Xh, %s, %s; want GOOD", cdb, r.status, r.key, r.asc)
	}
	return r.data
}

// wantSense checks how a command ended.
func (r result) wantSense(t testing.TB, key sense.Key, asc sense.ASC) {
	t.Helper()
	if r.status != StatusCheckCondition || r.key != key || r.asc != asc {
		t.Errorf("status %02Xh, %s, %s; want CHECK CONDITION, %s, %s", r.status, r.key, r.asc, key, asc)
	}
}

// wantStatus checks the status alone.
func (r result) wantStatus(t testing.TB, status byte) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %02Xh (%s, %s), want %02Xh", r.status, r.key, r.asc, status)
	}
}

func decodeSense(t testing.TB, s []byte) (sense.Key, sense.ASC) {
	t.Helper()
	if len(s) < 8 {
		t.Fatalf("CHECK CONDITION with %d bytes of sense data", len(s))
	}
	switch s[0] & 0x7E { // a deferred error has the next code
	case byte(sense.Fixed):
		return sense.Key(s[2] & 0xF), sense.ASC(binary.BigEndian.Uint16(s[12:]))
	case byte(sense.Descriptor):
		return sense.Key(s[1] & 0xF), sense.ASC(binary.BigEndian.Uint16(s[2:]))
	}
	t.Fatalf("sense data with response code %02Xh", s[0])
	return 0, 0
}

// unhex decodes hexadecimal text with blanks and comments after #.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	p, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("bad test data: %v", err)
	}
	return p
}

// wantHex compares bytes with hexadecimal text.
func wantHex(t testing.TB, got []byte, want string) {
	t.Helper()
	if w := unhex(t, want); !bytes.Equal(got, w) {
		t.Errorf("got\n%swant\n%s", hex.Dump(got), hex.Dump(w))
	}
}

// CDBs with a range.
func cdb6(op byte, lba uint32, blocks byte) []byte {
	c := make([]byte, 6)
	binary.BigEndian.PutUint32(c, lba&0x1FFFFF)
	c[0], c[4] = op, blocks
	return c
}

func cdb10(op, flags byte, lba uint32, blocks uint16) []byte {
	c := make([]byte, 10)
	c[0], c[1] = op, flags
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint16(c[7:], blocks)
	return c
}

func cdb12(op, flags byte, lba, blocks uint32) []byte {
	c := make([]byte, 12)
	c[0], c[1] = op, flags
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint32(c[6:], blocks)
	return c
}

func cdb16(op, flags byte, lba uint64, blocks uint32) []byte {
	c := make([]byte, 16)
	c[0], c[1] = op, flags
	binary.BigEndian.PutUint64(c[2:], lba)
	binary.BigEndian.PutUint32(c[10:], blocks)
	return c
}

// pattern returns n bytes that differ from block to block.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>9)*31 ^ seed
	}
	return p
}
