package foreign_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/blockdev"
	"odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/target/foreign"
	"odx/target/iscsi"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

const (
	targetName = "iqn.2026-11.example.other:disks"
	diskSize   = 4 << 20
)

// memory is a disk in memory, with a cache that can be lost.
type memory struct {
	mu            sync.Mutex // guards the rest
	data, durable []byte
	flushed       int
}

// flushes returns how often the cache was written.
func (m *memory) flushes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushed
}

func (m *memory) Size() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.data))
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.data[off:])
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	return nil
}

func (m *memory) Unmap(_ context.Context, off, length int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+length])
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushed++
	m.durable = bytes.Clone(m.data)
	return nil
}

// lose is a loss of power.
func (m *memory) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = bytes.Clone(m.durable)
}

// other is another target, whose server can be stopped and started.
type other struct {
	*scsi.Target
	t       *testing.T
	memory  *memory
	address string
	id      byte
	thick   bool
	// tamper changes what the target sends, if set: it returns false to end the connection.
	tamper atomic.Pointer[func(h *[48]byte, data []byte) ([]byte, bool)]
	// answer ends a command, if set and it returns a status.
	answer atomic.Pointer[func(t *scsi.Task) bool]

	server   *iscsi.Server
	listener net.Listener
	serving  sync.WaitGroup
}

func (o *other) Execute(ctx context.Context, t *scsi.Task) {
	if fn := o.answer.Load(); fn != nil && (*fn)(t) {
		return
	}
	o.Target.Execute(ctx, t)
}

// newOther starts a target with a disk at LUN 0.
func newOther(t *testing.T) *other {
	t.Helper()
	o := &other{t: t, memory: &memory{data: make([]byte, diskSize), durable: make([]byte, diskSize)}, address: "127.0.0.1:0", id: 1}
	o.start()
	t.Cleanup(o.stop)
	return o
}

func (o *other) start() {
	o.t.Helper()
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: o.memory, ID: [16]byte{o.id}, Thin: !o.thick})
	must.Succeed(o.t, err)
	o.Target = scsi.NewTarget(scsi.TargetConfig{Name: targetName, PortGroups: []scsi.PortGroup{{Tag: 1}}, Log: logs.Discard()})
	must.Succeed(o.t, o.AddLU(0, lu))
	o.server, err = iscsi.NewServer(iscsi.DefaultOptions(), []iscsi.TargetConfig{{Name: targetName, DeviceServer: o}})
	must.Succeed(o.t, err)
	l, err := net.Listen("tcp", o.address)
	must.Succeed(o.t, err)
	o.address = l.Addr().String()
	o.listener = tampering{l, o}
	server := o.server
	o.serving.Go(func() { _ = server.Serve(context.Background(), iscsi.Portal{Listener: tampering{l, o}, Group: 1}) })
}

// stop ends the target without a word to the initiator, as a crash does.
func (o *other) stop() {
	if o.server == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = o.server.Shutdown(ctx) // what is left is ended by force
	o.serving.Wait()
	o.server = nil
}

// tampering is a listener whose connections change what the target sends.
type tampering struct {
	net.Listener
	o *other
}

func (l tampering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tampered{Conn: c, o: l.o}, nil
}

type tampered struct {
	net.Conn
	o      *other
	mu     sync.Mutex
	buffer []byte
}

// Write takes whole PDUs out of what the target writes.
func (c *tampered) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buffer = append(c.buffer, p...)
	for len(c.buffer) >= 48 {
		h := [48]byte(c.buffer)
		length := int(h[5])<<16 | int(h[6])<<8 | int(h[7])
		whole := 48 + (length+3)&^3
		if len(c.buffer) < whole {
			break
		}
		data := bytes.Clone(c.buffer[48 : 48+length])
		c.buffer = c.buffer[whole:]
		if fn := c.o.tamper.Load(); fn != nil {
			var ok bool
			if data, ok = (*fn)(&h, data); !ok {
				c.Close()
				return 0, net.ErrClosed
			}
			h[5], h[6], h[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
		}
		pdu := append(append(h[:], data...), make([]byte, -len(data)&3)...)
		if _, err := c.Conn.Write(pdu); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// options are those of a Disk of o.
func (o *other) options() foreign.Options {
	return foreign.Options{
		URL: initiator.URL{Address: o.address, Target: targetName}, InitiatorName: "iqn.2026-11.example.odx:proxy", ISID: [6]byte{0x80, 1},
		Log: logs.Discard(),
	}
}

func (o *other) open(t testing.TB, op foreign.Options) *foreign.Disk {
	t.Helper()
	d, err := foreign.Open(context.Background(), op)
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, d.Close()) })
	return d
}

// eventually repeats fn until it succeeds: on a busy machine, a session can take longer than a short
// Options.Wait.
func eventually(t *testing.T, fn func() error) {
	t.Helper()
	err := errors.New("not tried yet")
	for end := time.Now().Add(2 * time.Minute); err != nil && time.Now().Before(end); {
		err = fn()
	}
	must.Succeed(t, err)
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)*7 + byte(i>>8) + seed
	}
	return p
}

// What initiators do reaches the other LUN, in every form.
func TestServed(t *testing.T) {
	o := newOther(t)
	d := o.open(t, o.options())
	if g := d.Geometry(); g.Size != diskSize || g.BlockLength != 512 || !strings.HasPrefix(g.ID, "naa.") {
		t.Fatalf("%+v", g)
	}
	v, ctx := d.Served(), t.Context()
	data := pattern(3<<20, 1) // several commands
	must.Succeed(t, v.WriteAt(ctx, data, 512))
	o.memory.lose()
	got := make([]byte, len(data))
	must.Succeed(t, v.ReadAt(ctx, got, 512))
	if !bytes.Equal(got, data) {
		t.Error("what was written is not durable, or not what is read")
	}
	must.Succeed(t, v.Unmap(ctx, 1024, 1<<20))
	o.memory.lose()
	must.Succeed(t, v.ReadAt(ctx, got, 512))
	if copy(data[512:], make([]byte, 1<<20)); !bytes.Equal(got, data) {
		t.Error("what was unmapped is not zeros, durably")
	}
	if at, err := v.CompareAndWrite(ctx, append(bytes.Clone(data[:511]), data[511]+1), pattern(512, 9), 512); at != 511 || err != nil {
		t.Errorf("COMPARE AND WRITE of something else: %d, %v", at, err)
	}
	if at, err := v.CompareAndWrite(ctx, data[:512], pattern(512, 9), 512); at != -1 || err != nil {
		t.Errorf("COMPARE AND WRITE: %d, %v", at, err)
	}
	must.Succeed(t, v.Update(ctx, 512, 512, func(p []byte) { p[0]++ }))
	must.Succeed(t, v.ReadAt(ctx, got[:512], 512))
	if want := pattern(512, 9); got[0] != want[0]+1 || !bytes.Equal(got[1:512], want[1:]) {
		t.Error("COMPARE AND WRITE and ORWRITE were not done")
	}
	before := o.memory.flushes()
	must.Succeed(t, v.Flush(ctx))
	if o.memory.flushes() == before {
		t.Error("SYNCHRONIZE CACHE is not passed on")
	}
	if err := v.ReadAt(ctx, got[:512], diskSize); !errors.Is(err, blockdev.ErrRange) {
		t.Errorf("a read after the end: %v", err)
	}
}

// A session that ends at any time is replaced, and no write is lost or older than another.
func TestServed_SessionLost(t *testing.T) {
	o := newOther(t)
	v, ctx := o.open(t, o.options()).Served(), t.Context()
	var pdus atomic.Int64
	cut := func(h *[48]byte, data []byte) ([]byte, bool) {
		if kind := h[0] & 0x3f; kind != 0x21 && kind != 0x25 && kind != 0x31 {
			return data, true
		}
		return data, pdus.Add(1)%41 != 0
	}
	o.tamper.Store(&cut)
	for i := range 60 {
		data, got := pattern(64<<10, byte(i)), make([]byte, 64<<10)
		off := int64(i%5) * (64 << 10)
		must.Succeed(t, v.WriteAt(ctx, data, off))
		must.Succeed(t, v.ReadAt(ctx, got, off))
		if !bytes.Equal(got, data) {
			t.Fatalf("write %d was lost", i)
		}
	}
}

// A target that is gone: commands wait for a bounded time, and go on once it is back; what was
// known of the LUN is enough to begin without it.
func TestDisk_TargetGone(t *testing.T) {
	o := newOther(t)
	op := o.options()
	op.Wait = time.Second
	d := o.open(t, op)
	v, ctx := d.Served(), t.Context()
	eventually(t, func() error { return v.WriteAt(ctx, pattern(4096, 1), 0) })
	o.stop()
	began := time.Now()
	if err := v.ReadAt(ctx, make([]byte, 512), 0); !errors.Is(err, blockdev.ErrUnavailable) || time.Since(began) > 10*time.Second {
		t.Errorf("a read without the target, after %s: %v", time.Since(began), err)
	}
	op.Known, op.ISID, op.Wait = d.Geometry(), [6]byte{0x80, 2}, 0
	late := o.open(t, op)
	if late.Size() != diskSize {
		t.Errorf("%d bytes", late.Size())
	}
	waiting, got := make(chan error, 1), make([]byte, 4096)
	go func() { waiting <- late.Served().ReadAt(ctx, got, 0) }()
	o.start()
	must.Succeed(t, <-waiting)
	eventually(t, func() error { return v.ReadAt(ctx, make([]byte, 512), 0) })
	if !bytes.Equal(got, pattern(4096, 1)) {
		t.Error("something else is read")
	}
}

// What a copy wrote may be lost with the session: the next flush says so, once.
func TestDisk_Flush_SessionLost(t *testing.T) {
	o := newOther(t)
	d, ctx := o.open(t, o.options()), t.Context()
	must.Succeed(t, d.WriteAt(ctx, pattern(4096, 1), 0))
	o.stop()
	o.memory.lose()
	o.start()
	if err := d.Flush(ctx); err == nil {
		t.Fatal("no error, and the write is lost")
	}
	must.Succeed(t, d.WriteAt(ctx, pattern(4096, 1), 0))
	must.Succeed(t, d.Flush(ctx))
	o.stop()
	o.memory.lose()
	o.start()
	must.Succeed(t, d.Flush(ctx)) // nothing was written since
	got := make([]byte, 4096)
	must.Succeed(t, d.ReadAt(ctx, got, 0))
	if !bytes.Equal(got, pattern(4096, 1)) {
		t.Error("what was flushed is lost")
	}
}

// Another LUN at the same address is refused, as is one that has become smaller; one that has
// grown is taken.
func TestDisk_Changed(t *testing.T) {
	o := newOther(t)
	grown := make(chan foreign.Geometry, 1)
	op := o.options()
	op.Wait = time.Second
	op.Grown = func(g foreign.Geometry) { grown <- g }
	d := o.open(t, op)
	restart := func(id byte, size int) {
		o.stop()
		o.id, o.memory.data = id, make([]byte, size)
		o.start()
	}
	read := func() error { return d.ReadAt(t.Context(), make([]byte, 512), 0) }
	refused := func(why string) {
		t.Helper()
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
			if err = read(); errors.Is(err, blockdev.ErrUnavailable) && strings.Contains(err.Error(), why) {
				return
			}
		}
		t.Errorf("%v, want an error with %q", err, why)
	}
	restart(2, diskSize)
	refused("another LUN")
	restart(1, diskSize/2)
	refused("it has 2097152 bytes, and had 4194304")
	restart(1, 2*diskSize)
	if g := <-grown; g.Size != 2*diskSize || d.Size() != 2*diskSize {
		t.Errorf("%+v", g)
	}
	// A unit attention on a session that goes on.
	o.memory.mu.Lock()
	o.memory.data = make([]byte, 3*diskSize)
	o.memory.mu.Unlock()
	o.LU(0).Resized()
	_ = read() // finds the unit attention
	if g := <-grown; g.Size != 3*diskSize {
		t.Errorf("%+v", g)
	}
}

// end returns an answer to commands with an operation code.
func end(code byte, key sense.Key, asc sense.ASC) *func(t *scsi.Task) bool {
	fn := func(t *scsi.Task) bool {
		if t.CDB()[0] != code {
			return false
		}
		t.Result = scsi.StatusCheckCondition
		t.SetSense(t.FormatSense(key, asc))
		return true
	}
	return &fn
}

// Errors of the LUN are those of a volume; one that says nothing of the medium ends nothing.
func TestDisk_Errors(t *testing.T) {
	o := newOther(t)
	d, ctx := o.open(t, o.options()), t.Context()
	for name, tt := range map[string]struct {
		key  sense.Key
		asc  sense.ASC
		want error
	}{
		"medium":     {sense.KeyMediumError, sense.ASCUnrecoveredReadError, blockdev.ErrCorrupt},
		"protected":  {sense.KeyDataProtect, sense.ASCWriteProtected, blockdev.ErrReadOnly},
		"full":       {sense.KeyDataProtect, sense.ASCSpaceAllocationFailed, blockdev.ErrNoSpace},
		"not ready":  {sense.KeyNotReady, sense.ASCLogicalUnitNotReady, blockdev.ErrUnavailable},
		"aborted":    {sense.KeyAbortedCommand, sense.ASCNone, blockdev.ErrBusy},
		"no such LU": {sense.KeyIllegalRequest, sense.ASC(0x2500), blockdev.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			o.answer.Store(end(0x88, tt.key, tt.asc))
			defer o.answer.Store(nil)
			err := d.ReadAt(ctx, make([]byte, 512), 4096)
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if corrupt, ok := errors.AsType[*blockdev.CorruptError](err); ok && corrupt.Offset != 4096 {
				t.Errorf("damage at %d", corrupt.Offset)
			}
		})
	}
}

// A hostile target: an error within the bound, never data that was not sent.
func TestDisk_Hostile(t *testing.T) {
	const response, dataIn, r2t = 0x21, 0x25, 0x31
	for name, fn := range map[string]func(h *[48]byte, data []byte) ([]byte, bool){
		"short data": func(h *[48]byte, data []byte) ([]byte, bool) {
			if h[0]&0x3f == dataIn {
				return data[:len(data)/2], true
			}
			return data, true
		},
		"data with a gap": func(h *[48]byte, data []byte) ([]byte, bool) {
			if h[0]&0x3f == dataIn {
				binary.BigEndian.PutUint32(h[40:], binary.BigEndian.Uint32(h[40:])+512)
			}
			return data, true
		},
		"residual": func(h *[48]byte, data []byte) ([]byte, bool) {
			if h[0]&0x3f == dataIn {
				return nil, true // all of it missing, with GOOD
			}
			if h[0]&0x3f == response {
				h[1] |= 0x02
				binary.BigEndian.PutUint32(h[44:], 0xffffffff)
			}
			return data, true
		},
		"garbage sense": func(h *[48]byte, data []byte) ([]byte, bool) {
			if h[0]&0x3f == dataIn || h[0]&0x3f == response {
				h[0], h[1], h[3] = response, 0x80, 0x02
				return []byte{0xff, 0xff, 0x7f, 0xff}, true
			}
			return data, true
		},
		"ends in the middle": func(h *[48]byte, data []byte) ([]byte, bool) {
			return data, h[0]&0x3f != dataIn && h[0]&0x3f != response && h[0]&0x3f != r2t
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOther(t)
			op := o.options()
			op.Wait = 500 * time.Millisecond
			v := o.open(t, op).Served()
			eventually(t, func() error { return v.WriteAt(t.Context(), pattern(8192, 3), 0) })
			o.tamper.Store(&fn)
			began := time.Now()
			if err := v.ReadAt(t.Context(), make([]byte, 8192), 0); err == nil {
				t.Error("no error of a read")
			}
			err := v.WriteAt(t.Context(), pattern(8192, 4), 0)
			got := make([]byte, 8192)
			if _ = o.memory.ReadAt(t.Context(), got, 0); err == nil && !bytes.Equal(got, pattern(8192, 4)) {
				t.Error("no error of a write that was not done")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("after %s", took)
			}
			o.tamper.Store(nil)
			eventually(t, func() error { return v.WriteAt(t.Context(), pattern(8192, 5), 0) })
			eventually(t, func() error { return v.ReadAt(t.Context(), got, 0) })
			if !bytes.Equal(got, pattern(8192, 5)) {
				t.Error("something else is read afterwards")
			}
		})
	}
}

// Many commands at once, more than are outstanding, while sessions end.
func TestServed_Concurrent(t *testing.T) {
	o := newOther(t)
	op := o.options()
	op.Command, op.Wait = time.Minute, 5*time.Minute // no matter what else the machine does
	v, ctx := o.open(t, op).Served(), t.Context()
	var pdus atomic.Int64
	cut := func(h *[48]byte, data []byte) ([]byte, bool) { return data, pdus.Add(1)%997 != 0 }
	o.tamper.Store(&cut)
	var running sync.WaitGroup
	for w := range 48 {
		running.Go(func() {
			got, off := make([]byte, 4096), int64(w)*4096
			for i := range 20 {
				data := pattern(4096, byte(w*31+i))
				err := errors.Join(v.WriteAt(ctx, data, off), v.ReadAt(ctx, got, off))
				if err == nil && !bytes.Equal(got, data) {
					err = fmt.Errorf("write %d of %d was lost", i, w)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}

// FuzzDisk: whatever becomes of what the target sends, commands end within their bound, and
// nothing panics.
func FuzzDisk(f *testing.F) {
	f.Add([]byte{3, 40, 1, 20, 44, 255, 7, 5, 9})
	f.Add(bytes.Repeat([]byte{1, 0, 0x3f}, 20))
	f.Fuzz(func(t *testing.T, changes []byte) {
		o := &other{t: t, memory: &memory{data: make([]byte, diskSize), durable: make([]byte, diskSize)}, address: "127.0.0.1:0", id: 1}
		o.start()
		defer o.stop()
		op := o.options()
		op.Command, op.Wait = 100*time.Millisecond, 200*time.Millisecond
		in := bytes.NewReader(changes)
		var mu sync.Mutex
		tamper := func(h *[48]byte, data []byte) ([]byte, bool) { // skip, byte of the header, value
			mu.Lock()
			defer mu.Unlock()
			var c [3]byte
			if _, err := io.ReadFull(in, c[:]); err != nil {
				return data, true
			}
			if i := int(c[1]) % 48; slices.Contains([]int{5, 6, 7}, i) {
				data = data[:min(len(data), int(c[2]))]
			} else {
				h[i] = c[2]
			}
			return data, c[0]%16 != 0
		}
		o.tamper.Store(&tamper)
		d, err := foreign.Open(t.Context(), op)
		if err != nil {
			return
		}
		defer d.Close()
		v := d.Served()
		_ = v.ReadAt(t.Context(), make([]byte, 4096), 0)
		_ = v.WriteAt(t.Context(), make([]byte, 4096), 0)
		_ = v.Unmap(t.Context(), 0, 4096)
		_ = v.Flush(t.Context())
	})
}
