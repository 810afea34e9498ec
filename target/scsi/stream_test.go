package scsi

import (
	"bytes"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/sample"
	"odx/target/scsi/sense"
)

// endlessVolume has any size, reads as zeros and takes nothing.
type endlessVolume struct{ blockdev.Volume }

func (endlessVolume) Size() int64 { return 1 << 40 }

// Commands of more than one piece move all of it, 65,535 blocks and 32 MiB among them,
// and compare where they have to.
func TestStream_Transfers(t *testing.T) {
	size := sample.Size(16<<20, 40<<20, 40<<20)
	f := newFixture(t, func(c *LUConfig) { c.Volume = newMemVolume(size) })
	vol := f.lu.Volume().(*memVolume)
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i) ^ byte(i>>9) ^ byte(i>>17)
	}
	for _, blocks := range []uint32{StreamPiece / 512, StreamPiece/512 + 1, 3 * StreamPiece / 512, 65535, 65536}[:sample.Size(3, 5, 5)] {
		n := int(blocks) * 512
		clear(vol.data)
		f.good(cdb16(0x8A, 0, 7, blocks), data[:n])
		if !bytes.Equal(vol.data[7*512:][:n], data[:n]) || !isZero(vol.data[:7*512]) || !isZero(vol.data[7*512+n:]) {
			t.Errorf("WRITE of %d blocks written data differs", blocks)
		}
		if got := f.good(cdb16(0x88, 0, 7, blocks), nil); !bytes.Equal(got, data[:n]) {
			t.Errorf("READ of %d blocks returned %d bytes, or others", blocks, len(got))
		}
		clear(vol.data)
		f.good(cdb16(0x8E, 0x02, 7, blocks), data[:n]) // WRITE AND VERIFY, BYTCHK 01b
		f.good(cdb16(0x8F, 0x02, 7, blocks), data[:n]) // VERIFY, BYTCHK 01b
		or := bytes.Repeat([]byte{0x42}, n)
		f.good(cdb16(opORWrite, 0, 7, blocks), or)
		for i := range or {
			or[i] |= data[i]
		}
		if !bytes.Equal(vol.data[7*512:][:n], or) || !isZero(vol.data[:7*512]) || !isZero(vol.data[7*512+n:]) {
			t.Errorf("ORWRITE of %d blocks wrote something else", blocks)
		}
		copy(vol.data[7*512:], data[:n])
		vol.data[7*512+n-1] ^= 1
		f.do(cdb16(0x8F, 0x02, 7, blocks), data[:n]).wantSense(t, sense.KeyMiscompare, sense.ASCMiscompareDuringVerify)
		f.good(cdb16(0x8F, 0, 7, blocks), nil)
	}
	if f.lu.tasks.state.Load() != 0 || f.nexus.unit([8]byte{}).tasks.Load() != 0 {
		t.Error("tasks are left in the task set")
	}
}

// A failure in the middle ends the command, and so does a fence between two pieces.
func TestStream_EndsEarly(t *testing.T) {
	const blocks = 3 * StreamPiece / 512
	f := newFixture(t, func(c *LUConfig) { c.Volume = newMemVolume(16 << 20) })
	other := f.attach("iqn.2026-11.example.initiator:b")
	begin := func(code byte, out, in uint32) *Task {
		task := NewTask(&f.pool)
		task.Reset(f.nexus, cdb16(code, 0, 0, blocks))
		task.ExpectedOut, task.ExpectedIn = out, in
		if f.target.Prepare(task) || !task.Streamed() {
			t.Fatal("not streamed")
		}
		return task
	}
	write := begin(0x8A, blocks*512, 0)
	write.AllocDataOut(StreamPiece)
	f.target.Execute(t.Context(), write)
	if !write.More() {
		t.Fatal("ended with the first piece")
	}
	f.on(other, reserve6).wantStatus(t, StatusGood)
	f.target.Execute(t.Context(), write)
	if write.More() || write.Result != StatusReservationConflict {
		t.Errorf("a reservation in between: status %02Xh", write.Result)
	}
	f.on(other, []byte{0x17, 0, 0, 0, 0, 0}).wantStatus(t, StatusGood)

	read := begin(0x88, 0, blocks*512)
	f.target.Execute(t.Context(), read)
	if !read.More() || len(read.DataIn()) != StreamPiece {
		t.Fatalf("first piece of %d bytes", len(read.DataIn()))
	}
	f.pool.Put(read.TakeDataIn())
	f.lu.Volume().(*memVolume).setError(blockdev.ErrCorrupt)
	f.target.Execute(t.Context(), read)
	if read.More() || read.Result != StatusCheckCondition || read.DataIn() != nil {
		t.Errorf("a failure in between: status %02Xh, %d bytes", read.Result, len(read.DataIn()))
	}
	write.Release()
	read.Release()
}

// What the initiator does not expect is not moved, and half a block never is.
func TestStream_ShorterThanCDB(t *testing.T) {
	const blocks = 3 * StreamPiece / 512
	f := newFixture(t, func(c *LUConfig) { c.Volume = newMemVolume(16 << 20) })
	data := bytes.Repeat([]byte{7}, StreamPiece+1024)
	r := f.run(request{nexus: f.nexus, cdb: cdb16(0x8A, 0, 0, blocks), out: data, expectedOut: len(data)})
	r.wantStatus(t, StatusGood)
	if got := f.good(cdb16(0x88, 0, 0, StreamPiece/512+3), nil); !bytes.Equal(got[:len(data)], data) || !isZero(got[len(data):]) {
		t.Error("written data differs")
	}
	r = f.run(request{nexus: f.nexus, cdb: cdb16(0x8A, 0, 0, blocks), out: make([]byte, StreamPiece+100), expectedOut: StreamPiece + 100})
	r.wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU)
	if got := f.good(cdb16(0x88, 0, 0, 8), nil); !bytes.Equal(got, data[:8*512]) {
		t.Error("a part was written")
	}
	task := NewTask(&f.pool)
	defer task.Release()
	task.Reset(f.nexus, cdb16(0x88, 0, 0, blocks))
	task.ExpectedIn = 700
	if f.target.Prepare(task) {
		t.Fatal("ended")
	}
	if f.target.Execute(t.Context(), task); task.More() || len(task.DataIn()) != 1024 || task.TransferLength() != blocks*512 {
		t.Errorf("%d bytes read for 700", len(task.DataIn()))
	}
}

// A streamed ORWRITE is one step for all other tasks: no task of any attribute runs
// between its pieces, and it does not start while another task may run.
func TestStream_ORWrite(t *testing.T) {
	const blocks = 3 * StreamPiece / 512
	f := newFixture(t, func(c *LUConfig) { c.Volume = newMemVolume(16 << 20) })
	for _, attribute := range []int{attributeSimple, attributeOrdered, AttributeHeadOfQueue} {
		earlier, _ := f.arrive(f.nexus, attributeSimple)
		or := NewTask(&f.pool)
		or.Reset(f.nexus, cdb16(opORWrite, 0, 0, blocks))
		or.Attribute, or.ExpectedOut = attribute, blocks*512
		if f.target.Prepare(or) || !or.Streamed() {
			t.Fatal("not streamed")
		}
		if or.Enabled() {
			t.Errorf("attribute %d: enabled during an earlier task", attribute)
		}
		earlier.Leave()
		var others []*Task
		for _, a := range []int{attributeSimple, attributeOrdered, AttributeHeadOfQueue} {
			other, _ := f.arrive(f.nexus, a)
			others = append(others, other)
		}
		for n := range 3 {
			or.AllocDataOut(StreamPiece)
			if f.target.Execute(t.Context(), or); or.More() != (n < 2) {
				t.Fatalf("attribute %d: more after piece %d: %v", attribute, n, or.More())
			}
			for i, other := range others {
				if enabled := other.Enabled(); enabled && n < 2 {
					t.Errorf("attribute %d: the other of attribute %d may run after piece %d", attribute, i+1, n)
				}
			}
		}
		if or.Result != StatusGood {
			t.Errorf("attribute %d: status %02Xh", attribute, or.Result)
		}
		if !others[2].Enabled() {
			t.Errorf("attribute %d: nothing runs after it", attribute)
		}
		for _, other := range others {
			other.Leave()
		}
		or.Release()
	}
	if f.lu.tasks.state.Load() != 0 {
		t.Error("tasks are left in the task set")
	}
}

// The bound is 4 GiB less a piece.
func TestStream_Bounds(t *testing.T) {
	f := newFixture(t, func(c *LUConfig) { c.Volume = endlessVolume{c.Volume} })
	f.do(cdb16(0x88, 0, 0, maximumTransfer/512+1), nil).wantSense(t, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	task := NewTask(&f.pool)
	defer task.Release()
	task.Reset(f.nexus, cdb16(0x8A, 0, 0, maximumTransfer/512))
	if f.target.Prepare(task) || task.Wanted != maximumTransfer {
		t.Errorf("WRITE of %d bytes wants %d", uint32(maximumTransfer), task.Wanted)
	}
	if err := f.lu.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
