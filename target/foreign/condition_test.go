package foreign_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"odx/initiator"
	"odx/internal/kit/must"
	"odx/target/foreign"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// What a LUN is asked before it is overwritten.
func TestDisk_Condition(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, o *other)
		want   foreign.Condition
	}{
		"empty":             {func(*testing.T, *other) {}, foreign.Condition{}},
		"data at the start": {func(_ *testing.T, o *other) { o.put(4095) }, foreign.Condition{Data: true, DataAt: 4095}},
		"data at the end":   {func(_ *testing.T, o *other) { o.put(diskSize - 1) }, foreign.Condition{Data: true, DataAt: diskSize - 1}},
		"data in the middle": {
			func(_ *testing.T, o *other) { o.put(diskSize / 2) }, foreign.Condition{Data: true, DataAt: diskSize / 2},
		},
		"protected":  {func(_ *testing.T, o *other) { o.LU(0).SetReadOnly(true) }, foreign.Condition{Protected: true}},
		"registered": {func(t *testing.T, o *other) { o.register(t, 0) }, foreign.Condition{Registered: 1}},
		"write exclusive": {
			func(t *testing.T, o *other) { o.register(t, 1) }, foreign.Condition{Registered: 1, Reserved: true},
		},
		"conflict": {
			func(_ *testing.T, o *other) {
				fn := func(t *scsi.Task) bool {
					conflicts := t.CDB()[0] == 0x5e || t.CDB()[0] == 0x88
					if conflicts {
						t.Result = 0x18
					}
					return conflicts
				}
				o.answer.Store(&fn)
			}, foreign.Condition{Reserved: true},
		},
		"no reservations": {
			func(_ *testing.T, o *other) {
				o.answer.Store(end(0x5e, sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode))
			}, foreign.Condition{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOther(t)
			tt.change(t, o)
			got, err := o.open(t, o.options()).Condition(t.Context())
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// put makes one byte of the disk something else than zero.
func (o *other) put(off int64) { _ = o.memory.WriteAt(context.Background(), []byte{1}, off) }

// empty reports whether the disk reads as zeros.
func (o *other) empty() bool {
	p := make([]byte, diskSize)
	_ = o.memory.ReadAt(context.Background(), p, 0)
	return bytes.Equal(p, make([]byte, diskSize))
}

// A LUN to which another initiator has exclusive access cannot be opened.
func TestOpen_Reserved(t *testing.T) {
	o := newOther(t)
	o.register(t, 3)
	if d, err := foreign.Open(t.Context(), o.options()); !foreign.Conflicts(err) {
		t.Errorf("%v, %v", d, err)
	}
}

// register registers another initiator for persistent reservations, and has it reserve the LUN
// by a type; 0: it does not.
func (o *other) register(t *testing.T, kind byte) {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{
		InitiatorName: "iqn.2026-11.example:another", URL: initiator.URL{Address: o.address, Target: targetName},
	})
	must.Succeed(t, err)
	t.Cleanup(func() { s.Close() })
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list[8:], 7)
	run := func(action, kind byte) {
		c := initiator.Command{CDB: []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, Out: list}
		err := s.Do(t.Context(), &c)
		if _, attention := err.(*initiator.SenseError); attention {
			err = s.Do(t.Context(), &c)
		}
		must.Succeed(t, err)
	}
	run(0, 0)
	if kind != 0 {
		binary.BigEndian.PutUint64(list, 7)
		run(1, kind)
	}
}

// A target that has to be sent zeros gets them only where it has something else.
func TestDisk_Unmap_Sent(t *testing.T) {
	o := newOther(t)
	o.stop()
	o.thick = true
	o.start()
	d, ctx := o.open(t, o.options()), t.Context()
	must.Succeed(t, d.WriteAt(ctx, pattern(512, 1), 1<<20))
	must.Succeed(t, d.WriteAt(ctx, pattern(512, 1), 2<<20))
	var writes atomic.Int64
	count := func(t *scsi.Task) bool {
		switch t.CDB()[0] {
		case 0x8a, 0x93:
			writes.Add(int64(binary.BigEndian.Uint32(t.CDB()[10:])))
		}
		return false
	}
	o.answer.Store(&count)
	must.Succeed(t, d.Unmap(ctx, 0, diskSize-4096))
	if n := writes.Load(); n == 0 || n > 1<<10 {
		t.Errorf("%d blocks were written, want two parts of 256 KiB", n)
	}
	if !o.empty() {
		t.Error("it does not read as zeros")
	}
	// What cannot be read is overwritten.
	o.answer.Store(end(0x88, sense.KeyMediumError, sense.ASCUnrecoveredReadError))
	must.Succeed(t, d.WriteAt(ctx, pattern(4096, 2), 0))
	must.Succeed(t, d.Unmap(ctx, 0, 4096))
	if !o.empty() {
		t.Error("what cannot be read does not read as zeros")
	}
	must.Succeed(t, d.Flush(ctx))
}
