package iscsi

import (
	"fmt"
	"testing"
)

// The same data is written in all possible ways (RFC 7143 4.2.4.2): immediate,
// unsolicited, solicited, and combinations.
func TestDataOut(t *testing.T) {
	const blocks = 40
	overTransports(t, nil, func(t *testing.T, b *bench) {
		for n, c := range []struct {
			name      string
			keys      []string
			immediate int
			unsol     int // after the immediate data
			bursts    []int
		}{
			{"immediate only", nil, blocks * memBlock, 0, nil},
			{"R2T only", []string{"ImmediateData=No"}, 0, 0, []int{blocks * memBlock}},
			{"R2T, short bursts", []string{"MaxBurstLength=8192"}, 0, 0, []int{8192, 8192, 4096}},
			{"immediate, then R2T", []string{"MaxBurstLength=8192", "FirstBurstLength=4096"}, 4096, 0, []int{8192, 8192}},
			{"unsolicited only", []string{"InitialR2T=No", "ImmediateData=No"}, 0, blocks * memBlock, nil},
			{"all three", []string{"InitialR2T=No", "FirstBurstLength=6144", "MaxBurstLength=10240"}, 1024, 5120, []int{10240, 4096}},
			{"odd lengths", []string{"InitialR2T=No", "FirstBurstLength=1027", "MaxBurstLength=8191"}, 513, 514, []int{8191, 8191, 3071}},
			{"immediate, fewer unsolicited than allowed", []string{"InitialR2T=No", "MaxBurstLength=20480"}, 512, 512, []int{19456}},
		} {
			i := b.login(c.keys...)
			data := pattern(n, blocks*memBlock)
			h := i.command(bitWrite, uint32(len(data)), write10(uint32(n*100), blocks)...)
			if c.unsol > 0 {
				h[1] &^= bitFinal
			}
			i.send(h, nil, data[:c.immediate])
			for sn, at := uint32(0), c.immediate; at < c.immediate+c.unsol; sn++ {
				k := min(1000, c.immediate+c.unsol-at)
				i.send(dataOutPDU(h, reservedTag, sn, uint32(at), at+k == c.immediate+c.unsol), nil, data[at:at+k])
				at += k
			}
			at := c.immediate + c.unsol
			for sn, want := range c.bursts {
				r, _ := i.expect(opR2T)
				if got := [3]uint32{r.field32(36), r.field32(40), r.field32(44)}; got != [3]uint32{uint32(sn), uint32(at), uint32(want)} {
					t.Fatalf("%s: R2TSN, offset, length %v, want %d %d %d", c.name, got, sn, at, want)
				}
				i.answerR2T(h, r, data, 3000)
				at += want
			}
			i.good(h)
			mustEqual(t, c.name, b.disk.at(n*100*memBlock, len(data)), data)
			i.logout()
		}
	})
}

// As many R2Ts are outstanding as negotiated; the initiator answers them in order.
func TestDataOut_R2Ts(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("MaxOutstandingR2T=3", "MaxBurstLength=2048", "ImmediateData=No")
		data := pattern(9, 16<<10)
		h := i.command(bitWrite, uint32(len(data)), write10(0, 32)...)
		i.send(h, nil, nil)
		var open []*bhs
		for sn := range 8 {
			for len(open) < 3 && sn+len(open) < 8 {
				r, _ := i.expect(opR2T)
				open = append(open, r)
			}
			i.answerR2T(h, open[0], data, 700)
			open = open[1:]
		}
		i.good(h)
		mustEqual(t, "disk", b.disk.at(0, len(data)), data)
	})
}

// Data-In is split into PDUs of at most MaxRecvDataSegmentLength, with F at the end of
// each MaxBurstLength and status in the last PDU.
func TestDataIn(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		b.disk.put(0, pattern(3, 1<<20))
		for _, c := range []struct {
			keys           []string
			blocks         int
			segment, burst int
		}{
			{nil, 100, 8192, 262144},
			{[]string{"MaxRecvDataSegmentLength=512"}, 3, 512, 262144},
			{[]string{"MaxRecvDataSegmentLength=4096", "MaxBurstLength=10000"}, 64, 4096, 10000},
			{[]string{"MaxRecvDataSegmentLength=262144"}, 512, 262144, 262144},
			{[]string{"MaxRecvDataSegmentLength=65535"}, 300, 65532, 262144},
		} {
			i := b.login(c.keys...)
			h := i.command(bitRead, uint32(c.blocks*memBlock), read10(5, uint16(c.blocks))...)
			i.send(h, nil, nil)
			var got []byte
			for burst := 0; ; {
				r, d := i.expect(opDataIn)
				burst += len(d)
				final := r[1]&bitFinal != 0
				end := len(got)+len(d) == c.blocks*memBlock
				if len(d) > c.segment || burst > c.burst || final != (end || burst == c.burst) {
					t.Fatalf("%v: %d bytes at %d, final %t, burst %d", c.keys, len(d), len(got), final, burst)
				}
				if final {
					burst = 0
				}
				got = append(got, d...)
				if end {
					if r[1]&bitStatus == 0 || r[3] != statusGood {
						t.Fatalf("%v: last Data-In %x has no GOOD status", c.keys, *r)
					}
					break
				}
			}
			mustEqual(t, fmt.Sprint(c.keys), got, b.disk.at(5*memBlock, len(got)))
			i.logout()
		}
	})
}

// Transfer lengths of CDBs and expected data transfer lengths differ (RFC 7143 11.4.5).
func TestTask_Residual(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("InitialR2T=No")
		for _, c := range []struct {
			name     string
			flags    byte
			edtl     uint32
			cdb      []byte
			status   byte
			residual byte
			count    uint32
			dataIn   int
		}{
			{"read, exact", bitRead, 512, read10(0, 1), 0, 0, 0, 512},
			{"read, nothing expected", bitRead, 0, read10(0, 1), 0, bitOverflow, 512, 0},
			{"read, no direction", 0, 0, read10(0, 1), 0, bitOverflow, 512, 0},
			{"read, less expected", bitRead, 200, read10(0, 1), 0, bitOverflow, 312, 200},
			{"read, more expected", bitRead, 10000, read10(0, 1), 0, bitUnderflow, 9488, 512},
			{"read of nothing", bitRead, 512, read10(0, 0), 0, bitUnderflow, 512, 0},
			{"read, error", bitRead, 512, read10(1<<30, 1), 2, bitUnderflow, 512, 0},
			{"read, flagged as write", bitWrite, 512, read10(0, 1), 0, bitUnderflow, 512, 0},
			{"write, exact", bitWrite, 512, write10(0, 1), 0, 0, 0, 0},
			{"write, nothing offered", bitWrite, 0, write10(0, 1), 0, bitOverflow, 512, 0},
			{"write, no direction", 0, 0, write10(0, 1), 0, bitOverflow, 512, 0},
			{"write, less offered", bitWrite, 200, write10(0, 1), 0, bitOverflow, 312, 0},
			{"write, more offered", bitWrite, 10000, write10(0, 1), 0, bitUnderflow, 9488, 0},
			{"write, error", bitWrite, 512, write10(1<<30, 1), 2, bitUnderflow, 512, 0},
			{"write, flagged as read", bitRead, 512, write10(0, 1), 0, bitUnderflow, 512, 0},
			{"no data", 0, 0, []byte{0x35}, 0, 0, 0, 0},
			{"no data, some expected", bitRead, 100, []byte{0x35}, 0, bitUnderflow, 100, 0},
		} {
			h := i.command(c.flags, c.edtl, c.cdb...)
			var data []byte
			if c.flags&bitWrite != 0 {
				data = make([]byte, c.edtl)
			}
			i.send(h, nil, data)
			r, in := i.status(h)
			if r[3] == statusCheckCondition {
				in = nil
			}
			if got := r[1] & (bitOverflow | bitUnderflow); r[3] != c.status || got != c.residual || r.field32(44) != c.count || len(in) != c.dataIn {
				t.Errorf("%s: status %d, residual %#x %d, %d bytes; want %d, %#x %d, %d",
					c.name, r[3], got, r.field32(44), len(in), c.status, c.residual, c.count, c.dataIn)
			}
		}
	})
}

// Invalid Data-Out fails the command after all data has arrived (RFC 7143 11.4.2), and the
// session continues.
func TestDataOut_Errors(t *testing.T) {
	type part struct {
		sn, offset uint32
		n          int
		final      bool
	}
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("InitialR2T=No", "FirstBurstLength=2048", "MaxBurstLength=2048")
		ref := pattern(1, 8*memBlock)
		i.writeBlocks(0, ref[:2048])
		for _, c := range []struct {
			name        string
			blocks      uint16
			unsolicited bool
			immediate   int
			parts       []part
			want        senseCode
		}{
			{"DataSN twice the same", 4, true, 0, []part{{0, 0, 1024, false}, {0, 1024, 1024, true}}, senseDataPhase},
			{"DataSN too high", 4, true, 0, []part{{27, 0, 2048, true}}, senseDataPhase},
			{"DataSN -1", 4, true, 0, []part{{^uint32(0), 0, 2048, true}}, senseDataPhase},
			{"DataSN in reverse", 4, true, 0, []part{{1, 0, 1024, false}, {0, 1024, 1024, true}}, senseDataPhase},
			{"gap in the offsets", 4, true, 0, []part{{0, 0, 512, false}, {1, 1024, 512, true}}, senseDataOffset},
			{"offset goes back", 4, true, 512, []part{{0, 0, 512, true}}, senseDataOffset},
			{"more than the first burst", 8, true, 0, []part{{0, 0, 2048, false}, {1, 2048, 512, true}}, senseTooMuchData},
			{"more immediate data than the first burst", 8, false, 3072, nil, senseTooMuchData},
			{"more than the command", 1, true, 0, []part{{0, 0, 1024, true}}, senseTooMuchData},
			{"solicited, too little", 4, false, 0, []part{{0, 0, 1024, true}}, senseNotEnoughData},
			{"solicited, too much", 4, false, 0, []part{{0, 0, 2048, false}, {1, 2048, 512, true}}, senseTooMuchData},
			{"solicited, DataSN", 4, false, 0, []part{{3, 0, 2048, true}}, senseDataPhase},
			{"solicited, offset far out", 4, false, 0, []part{{0, 1 << 31, 2048, true}}, senseDataOffset},
		} {
			h := i.command(bitWrite, uint32(c.blocks)*memBlock, write10(0, c.blocks)...)
			ttt := uint32(reservedTag)
			if c.unsolicited {
				h[1] &^= bitFinal
			}
			i.send(h, nil, make([]byte, c.immediate))
			if !c.unsolicited && c.parts != nil {
				r, _ := i.expect(opR2T)
				ttt = r.ttt()
			}
			for _, p := range c.parts {
				i.send(dataOutPDU(h, ttt, p.sn, p.offset, p.final), nil, make([]byte, p.n))
			}
			if got := i.senseOf(h); got != c.want {
				t.Errorf("%s: sense %x, want %x", c.name, got, c.want)
			}
		}
		mustEqual(t, "disk", i.readBlocks(0, 4), ref[:2048])
	})
}

// Unsolicited data arrives although it was not negotiated.
func TestDataOut_UnsolicitedNotAllowed(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("InitialR2T=Yes", "ImmediateData=No")
		h := i.command(bitWrite, 512, write10(0, 1)...)
		i.send(h, nil, make([]byte, 512))
		if got := i.senseOf(h); got != senseUnexpectedUnsolicited {
			t.Errorf("immediate data: sense %x", got)
		}
		h = i.command(bitWrite, 512, write10(0, 1)...)
		h[1] &^= bitFinal
		i.send(h, nil, nil)
		i.send(dataOutPDU(h, reservedTag, 0, 0, true), nil, make([]byte, 512))
		if got := i.senseOf(h); got != senseUnexpectedUnsolicited {
			t.Errorf("unsolicited data: sense %x", got)
		}
		h = i.command(bitRead, 512, read10(0, 1)...)
		i.send(h, nil, make([]byte, 512))
		if got := i.senseOf(h); got != senseUnexpectedUnsolicited {
			t.Errorf("data with a read: sense %x", got)
		}
		i.alive()
	})
}

// A command that fails in Prepare is answered after its unsolicited data has arrived
// (RFC 7143 11.4.2).
func TestDataOut_AfterError(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login("InitialR2T=No")
		h := i.command(bitWrite, 2048, write10(1<<30, 4)...)
		h[1] &^= bitFinal
		i.send(h, nil, make([]byte, 512))
		i.send(dataOutPDU(h, reservedTag, 0, 512, false), nil, make([]byte, 1024))
		ping := i.request(opNopOut | bitImmediate)
		i.send(ping, nil, nil)
		if r, _ := i.expect(opNopIn); r.itt() != ping.itt() {
			t.Fatalf("NOP-In %x", *r)
		}
		i.send(dataOutPDU(h, reservedTag, 1, 1536, true), nil, make([]byte, 512))
		if got := i.senseOf(h); got != (senseCode{5, 0x21, 0}) {
			t.Errorf("sense %x", got)
		}
		i.alive()
	})
}

// Both directions are requested, by flags or by AHS.
func TestCommand_Bidirectional(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login()
		h := i.command(bitRead|bitWrite, 512, write10(0, 1)...)
		i.send(h, nil, make([]byte, 512))
		if got := i.senseOf(h); got != senseInvalidIU {
			t.Errorf("sense %x", got)
		}
		h = i.command(bitWrite, 512, write10(0, 1)...)
		i.send(h, []byte{0, 5, ahsBidirectionalRead, 0, 0, 0, 2, 0}, make([]byte, 512))
		if got := i.senseOf(h); got != senseInvalidIU {
			t.Errorf("sense %x", got)
		}
		i.alive()
	})
}

// A CDB of 32 bytes arrives in an additional header segment.
func TestCommand_ExtendedCDB(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		for n, digests := range []string{"None", "CRC32C"} {
			i := b.login("HeaderDigest="+digests, "DataDigest="+digests)
			data := pattern(n, memBlock)
			h := i.command(bitWrite, memBlock, 0x7f)
			ahs := append([]byte{0, 17, ahsExtendedCDB, 0}, make([]byte, 16)...)
			i.send(h, ahs, data)
			i.good(h)
			mustEqual(t, "disk", b.disk.at(0, memBlock), data)
			i.logout()
		}
	})
}

// With more outstanding Data-Out than memory, all commands end.
func TestMemory_DataOut(t *testing.T) {
	limit := func(o *Options) { o.BufferBytes, o.FirstBurstLength = 136<<10, 4096 }
	overTransports(t, limit, func(t *testing.T, b *bench) {
		i := b.login("MaxBurstLength=8192", "FirstBurstLength=4096", "InitialR2T=No")
		const commands, blocks = 6, 32
		sent := map[uint32]*bhs{}
		data := map[uint32][]byte{}
		for n := range commands {
			h := i.command(bitWrite, blocks*memBlock, write10(uint32(n*blocks), blocks)...)
			sent[h.itt()], data[h.itt()] = h, pattern(n, blocks*memBlock)
			i.send(h, nil, data[h.itt()][:1500])
		}
		open, ended := map[uint32]bool{}, 0
		for ended < commands {
			r, _ := i.recv()
			switch r.opcode() {
			case opR2T:
				open[r.itt()] = true
				if len(open) > 3 { // one of them in the small part
					t.Fatalf("%d commands of 16 KiB have R2Ts at once, want at most 3", len(open))
				}
				i.answerR2T(sent[r.itt()], r, data[r.itt()], 4096)
			case opSCSIResponse:
				if r[3] != statusGood {
					t.Fatalf("status %d", r[3])
				}
				delete(open, r.itt())
				ended++
			default:
				t.Fatalf("opcode %#x", r.opcode())
			}
		}
		for n := range commands {
			mustEqual(t, "disk", b.disk.at(n*blocks*memBlock, blocks*memBlock), pattern(n, blocks*memBlock))
		}
	})
}

// With more outstanding Data-In than memory, all commands end.
func TestMemory_DataIn(t *testing.T) {
	overTransports(t, func(o *Options) { o.BufferBytes = 64 << 10 }, func(t *testing.T, b *bench) {
		b.disk.put(0, pattern(0, 1<<20))
		i := b.login()
		left := map[uint32]int{}
		for range 12 {
			h := i.command(bitRead, 16<<10, read10(0, 32)...)
			left[h.itt()] = 16 << 10
			i.send(h, nil, nil)
		}
		for len(left) > 0 {
			r, d := i.expect(opDataIn)
			if left[r.itt()] -= len(d); left[r.itt()] == 0 {
				delete(left, r.itt())
			}
		}
	})
}

// A first burst that was negotiated before a shorter burst may be sent completely.
func TestDataOut_FirstBurst(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.dial()
		i.wantStep(csgOperational, []string{name, wantTarget, "InitialR2T=No", "FirstBurstLength=65536"}, csgOperational,
			identity+"InitialR2T=No FirstBurstLength=65536 "+declares)
		i.wantStep(csgOperational|toFullFeature, []string{"MaxBurstLength=4096"}, csgOperational|toFullFeature, "MaxBurstLength=4096")
		data := pattern(5, 64<<10)
		h := i.command(bitWrite, 64<<10, write10(8, 128)...)
		h[1] &^= bitFinal
		i.send(h, nil, data[:8192])
		i.send(dataOutPDU(h, reservedTag, 0, 8192, true), nil, data[8192:])
		i.good(h)
		mustEqual(t, "disk", b.disk.at(8*memBlock, len(data)), data)
	})
}
