package iscsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"odx/target/scsi"
)

func cdb16(code byte, lba, blocks int) []byte {
	c := make([]byte, 16)
	c[0] = code
	binary.BigEndian.PutUint64(c[2:], uint64(lba))
	binary.BigEndian.PutUint32(c[10:], uint32(blocks))
	return c
}

// stream writes with solicited Data-Out and returns the status.
func (i *initiator) stream(cdb, data []byte, immediate int) byte {
	i.tb.Helper()
	h := i.command(bitWrite, uint32(len(data)), cdb...)
	i.send(h, nil, data[:immediate])
	next := immediate
	for {
		r, _ := i.recv()
		if r.itt() != h.itt() {
			i.tb.Fatalf("received %x", *r)
		}
		if r.opcode() == opSCSIResponse {
			if r[1]&(bitOverflow|bitUnderflow) != 0 {
				i.tb.Errorf("residual in %x", *r)
			}
			return r[3]
		}
		if r.opcode() != opR2T || int(r.field32(40)) != next {
			i.tb.Fatalf("received %x, want an R2T from %d on", *r, next)
		}
		next += int(r.field32(44))
		i.answerR2T(h, r, data, 64<<10)
	}
}

// Transfers longer than a piece are complete, in both directions, including 65,535
// blocks and 32 MiB.
func TestStreamed_Transfers(t *testing.T) {
	const size = 40 << 20
	for n, keys := range [][]string{
		{"ImmediateData=No"}, {"ImmediateData=Yes", "MaxRecvDataSegmentLength=65536"},
		{"MaxBurstLength=262144", "MaxOutstandingR2T=4", "DataDigest=CRC32C"},
	} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			disk := newMemDisk(size)
			b := newVolumeBench(t, memVolume{disk}, func(*Options) {})
			i := b.login(keys...)
			i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // power on
			for _, blocks := range []int{scsi.StreamPiece/memBlock + 1, 65535 + n} {
				data := pattern(blocks, blocks*memBlock)
				immediate := 0
				if i.keys["ImmediateData"] == "Yes" {
					immediate = 8192
				}
				if got := i.stream(cdb16(0x8A, 3, blocks), data, immediate); got != statusGood {
					t.Fatalf("WRITE of %d blocks: status %02Xh", blocks, got)
				}
				mustEqual(t, "written", disk.at(3*memBlock, len(data)), data)
				got := i.good(sendCommand(i, i.command(bitRead, uint32(len(data)), cdb16(0x88, 3, blocks)...)))
				mustEqual(t, "read", got, data)
				verify := cdb16(0x8F, 3, blocks)
				verify[1] = 0x02
				if got := i.stream(verify, data, immediate); got != statusGood {
					t.Errorf("VERIFY of %d blocks: status %02Xh", blocks, got)
				}
			}
			// Less than the transfer length, and more.
			const blocks = 3 * scsi.StreamPiece / memBlock
			h := sendCommand(i, i.command(bitRead, scsi.StreamPiece+100, cdb16(0x88, 3, blocks)...))
			r, got := i.status(h)
			if r[3] != statusGood || len(got) != scsi.StreamPiece+100 || r[1]&bitOverflow == 0 || r.field32(44) != blocks*memBlock-scsi.StreamPiece-100 {
				t.Errorf("READ of less: %x, %d bytes", *r, len(got))
			}
			h = sendCommand(i, i.command(bitRead, blocks*memBlock+100, cdb16(0x88, 3, blocks)...))
			if r, got = i.status(h); r[3] != statusGood || len(got) != blocks*memBlock || r[1]&bitUnderflow == 0 || r.field32(44) != 100 {
				t.Errorf("READ of more: %x, %d bytes", *r, len(got))
			}
			i.logout()
		})
	}
}

// A command whose initiator does not receive holds at most four pieces and lets others
// go first. It can be aborted, and continues when the initiator does.
func TestStreamed_Memory(t *testing.T) {
	const size = 48 << 20
	b := newVolumeBench(t, memVolume{newMemDisk(size)}, func(*Options) {})
	i := b.login("MaxRecvDataSegmentLength=262144")
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0)))
	if err := i.nc.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	read := func() *bhs { return sendCommand(i, i.command(bitRead, size, cdb16(0x88, 0, size/memBlock)...)) }
	held := func() bool {
		s := b.srv.Sessions()
		return len(s) == 1 && b.srv.BufferedBytes() > maxInFlight/2
	}
	h := read()
	most := int64(0)
	eventually(t, "the command holds memory", func() bool { return held() })
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		most = max(most, b.srv.BufferedBytes())
	}
	if limit := int64(maxInFlight + maxInFlight/8); most > limit {
		t.Errorf("%d bytes held, want at most %d", most, limit)
	}
	r, got := i.status(h)
	if r[3] != statusGood || len(got) != size {
		t.Errorf("%x, %d bytes", *r, len(got))
	}

	h = read()
	eventually(t, "the command holds memory", func() bool { return held() })
	abort := i.tmf(tmfAbortTask, [8]byte{}, h)
	for {
		r, _ := i.recv()
		if r.opcode() == opTMFResponse {
			if r.itt() != abort.itt() || r[2] != tmfComplete {
				t.Errorf("task management response %x", *r)
			}
			break
		}
		if r.opcode() != opDataIn || r[1]&bitStatus != 0 {
			t.Fatalf("received %x", *r)
		}
	}
	eventually(t, "its memory is given back", func() bool { return b.srv.BufferedBytes() == 0 })
	i.alive()
	i.logout()
}

// A write of which a piece fails ends with the error, and the session continues. A
// connection loss during a transfer leaves nothing.
func TestStreamed_Errors(t *testing.T) {
	const blocks = 3 * scsi.StreamPiece / memBlock
	disk := newMemDisk(16 << 20)
	b := newVolumeBench(t, memVolume{disk}, func(*Options) {})
	i, other := b.login("ImmediateData=No"), b.loginAs(testInitiator+".other")
	for _, i := range []*initiator{i, other} {
		i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0)))
	}
	data := bytes.Repeat([]byte{5}, blocks*memBlock)
	h := sendCommand(i, i.command(bitWrite, uint32(len(data)), cdb16(0x8A, 0, blocks)...))
	r, _ := i.expect(opR2T)
	for int(r.field32(40)) < scsi.StreamPiece { // until the second piece is solicited
		i.answerR2T(h, r, data, 64<<10)
		r, _ = i.expect(opR2T)
	}
	other.good(sendCommand(other, other.command(0, 0, 0x16, 0, 0, 0, 0, 0))) // RESERVE(6)
	for r.opcode() == opR2T {
		i.answerR2T(h, r, data, 64<<10)
		r, _ = i.recv()
	}
	if r.opcode() != opSCSIResponse || r[3] != 0x18 {
		t.Errorf("received %x, want RESERVATION CONFLICT", *r)
	}
	if got := disk.at(scsi.StreamPiece, memBlock); !bytes.Equal(got, make([]byte, memBlock)) {
		t.Error("a piece was written after the reservation")
	}
	other.good(sendCommand(other, other.command(0, 0, 0x17, 0, 0, 0, 0, 0)))
	sendCommand(i, i.command(bitWrite, uint32(len(data)), cdb16(0x8A, 0, blocks)...))
	i.expect(opR2T)
	i.nc.Close()
	eventually(t, "nothing is left", func() bool { return len(b.srv.Sessions()) == 1 && b.srv.BufferedBytes() == 0 })
	other.alive()
}
