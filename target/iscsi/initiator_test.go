package iscsi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// initiator is a minimal iSCSI initiator for tests, which can also violate the
// protocol. It checks the sequence numbers of all received PDUs.
type initiator struct {
	tb     testing.TB
	nc     net.Conn
	isid   [6]byte
	tsih   uint16
	itt    uint32
	cmdSN  uint32
	statSN uint32 // of the next response
	maxSN  uint32
	begun  bool // a StatSN was received

	headerDigest, dataDigest bool
	keys                     map[string]string // answers of the target
}

// dial connects without logging in.
func (b *bench) dial() *initiator {
	b.tb.Helper()
	return b.dialFrom("")
}

// dialFrom connects from an address, or from any if that is empty.
func (b *bench) dialFrom(address string) *initiator {
	b.tb.Helper()
	var d net.Dialer
	if address != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(address)}
	}
	nc, err := d.Dial("tcp", b.addr)
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(func() { nc.Close() })
	return &initiator{tb: b.tb, nc: nc, isid: [6]byte{0x80, 1, 2, 3, 4, 5}, cmdSN: 100, keys: map[string]string{}}
}

// login connects and logs in to the test target with the given operational keys.
func (b *bench) login(keys ...string) *initiator {
	b.tb.Helper()
	return b.loginAs(testInitiator, keys...)
}

func (b *bench) loginAs(name string, keys ...string) *initiator {
	b.tb.Helper()
	i := b.dial()
	i.login(append([]string{"InitiatorName=" + name, "TargetName=" + testTarget, "SessionType=Normal"}, keys...)...)
	return i
}

// login logs in with one request in the operational stage.
func (i *initiator) login(keys ...string) {
	i.tb.Helper()
	h := i.loginRequest(stageOperational, stageFullFeature)
	i.send(h, nil, text(keys...))
	r, data := i.recv()
	if r.opcode() != opLoginResponse || r.field16(36) != loginSuccess || r[1] != bitTransit|stageOperational<<2|stageFullFeature {
		i.tb.Fatalf("login answered with %x %q", r, data)
	}
	i.loggedIn(r, data)
}

func (i *initiator) loginRequest(stage, next int) *bhs {
	h := &bhs{0: opLogin | bitImmediate, 1: byte(stage << 2)}
	if next > stage {
		h[1] |= bitTransit | byte(next)
	}
	copy(h[8:], i.isid[:])
	h.put16(14, i.tsih)
	h.put32(16, 0x1234)
	h.put32(24, i.cmdSN)
	return h
}

func (i *initiator) loggedIn(r *bhs, data []byte) {
	i.tsih = r.field16(14)
	pairs, err := parseText(data)
	if err != nil {
		i.tb.Fatal(err)
	}
	for _, p := range pairs {
		i.keys[p.key] = p.value
	}
	i.headerDigest = i.keys["HeaderDigest"] == "CRC32C"
	i.dataDigest = i.keys["DataDigest"] == "CRC32C"
}

// text encodes keys as text.
func text(keys ...string) []byte {
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	return b
}

// encode returns a PDU in wire format.
func encode(h *bhs, ahs, data []byte, headerDigest, dataDigest bool) []byte {
	h[4] = byte(len(ahs) / 4)
	h.setDataSegmentLength(len(data))
	b := append(append([]byte(nil), h[:]...), ahs...)
	sum := make([]byte, digestLength)
	if headerDigest {
		digest(0).add(b).put(sum)
		b = append(b, sum...)
	}
	if len(data) > 0 {
		from := len(b)
		b = append(append(b, data...), zeroPad[:padding(len(data))]...)
		if dataDigest {
			digest(0).add(b[from:]).put(sum)
			b = append(b, sum...)
		}
	}
	return b
}

func (i *initiator) send(h *bhs, ahs, data []byte) {
	i.tb.Helper()
	i.write(encode(h, ahs, data, i.headerDigest, i.dataDigest))
}

func (i *initiator) write(b []byte) {
	i.tb.Helper()
	if _, err := i.nc.Write(b); err != nil {
		i.tb.Fatalf("send: %v", err)
	}
}

// read reads a PDU without checking it.
func (i *initiator) read() (*bhs, []byte, error) {
	if err := i.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, nil, err
	}
	var h bhs
	if _, err := io.ReadFull(i.nc, h[:]); err != nil {
		return nil, nil, err
	}
	sum := make([]byte, digestLength)
	if i.headerDigest {
		if _, err := io.ReadFull(i.nc, sum); err != nil {
			return nil, nil, err
		}
		if !digest(0).add(h[:]).matches(sum) {
			return nil, nil, errHeaderDigest
		}
	}
	n := h.dataSegmentLength()
	data := make([]byte, n+padding(n))
	if _, err := io.ReadFull(i.nc, data); err != nil {
		return nil, nil, err
	}
	if n > 0 && i.dataDigest {
		if _, err := io.ReadFull(i.nc, sum); err != nil {
			return nil, nil, err
		}
		if !digest(0).add(data).matches(sum) {
			return nil, nil, errDataDigest
		}
	}
	return &h, data[:n], nil
}

// recv reads a PDU and checks its sequence numbers (RFC 7143 4.2.2).
func (i *initiator) recv() (*bhs, []byte) {
	i.tb.Helper()
	h, data, err := i.read()
	if err != nil {
		i.tb.Fatalf("receive: %v", err)
	}
	if h.opcode() == opLoginResponse && h.field16(36) != 0 {
		return h, data
	}
	exp, limit := h.field32(28), h.field32(32)
	if serialLess(limit, i.maxSN) && i.begun {
		i.tb.Errorf("opcode %#x: MaxCmdSN went back from %d to %d", h.opcode(), i.maxSN, limit)
	}
	if serialLess(limit+1, exp) {
		i.tb.Errorf("opcode %#x: MaxCmdSN %d, ExpCmdSN %d", h.opcode(), limit, exp)
	}
	i.maxSN = limit
	if h.opcode() == opDataIn && h[1]&bitStatus == 0 {
		return h, data
	}
	statSN := h.field32(24)
	if i.begun && statSN != i.statSN {
		i.tb.Errorf("opcode %#x: StatSN %d, want %d", h.opcode(), statSN, i.statSN)
	}
	i.begun, i.statSN = true, statSN
	if h.opcode() != opR2T && (h.opcode() != opNopIn || h.itt() != reservedTag) {
		i.statSN++
	}
	return h, data
}

// expect reads a PDU, which must have the given opcode.
func (i *initiator) expect(opcode byte) (*bhs, []byte) {
	i.tb.Helper()
	h, data := i.recv()
	if h.opcode() != opcode {
		i.tb.Fatalf("received opcode %#x (%x %x), want %#x", h.opcode(), *h, data[:min(len(data), 64)], opcode)
	}
	return h, data
}

// expectClosed reads until the target closes the connection.
func (i *initiator) expectClosed() {
	i.tb.Helper()
	for {
		_, _, err := i.read()
		if err == nil {
			continue
		}
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			i.tb.Fatal("the connection is still open")
		}
		return
	}
}

// request returns a request of the full feature phase with the next CmdSN and task tag. It
// consumes the CmdSN unless the caller makes the request immediate.
func (i *initiator) request(opcode byte) *bhs {
	i.itt++
	h := &bhs{0: opcode, 1: bitFinal}
	h.put32(16, i.itt)
	h.put32(20, reservedTag)
	h.put32(24, i.cmdSN)
	h.put32(28, i.statSN)
	if opcode&bitImmediate == 0 {
		i.cmdSN++
	}
	return h
}

// command returns a SCSI Command.
func (i *initiator) command(flags byte, edtl uint32, cdb ...byte) *bhs {
	h := i.request(opSCSICommand)
	h[1] = bitFinal | flags | 1 // simple
	h.put32(20, edtl)
	copy(h[32:], cdb)
	return h
}

func read10(lba uint32, blocks uint16) []byte {
	return []byte{0x28, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(blocks >> 8), byte(blocks), 0}
}

func write10(lba uint32, blocks uint16) []byte {
	b := read10(lba, blocks)
	b[0] = 0x2a
	return b
}

// dataOutPDU returns a Data-Out PDU of command h.
func dataOutPDU(h *bhs, ttt, dataSN, offset uint32, final bool) *bhs {
	d := &bhs{0: opDataOut}
	if final {
		d[1] = bitFinal
	}
	copy(d[8:20], h[8:20])
	d.put32(20, ttt)
	d.put32(36, dataSN)
	d.put32(40, offset)
	return d
}

// answerR2T sends the data that an R2T solicits, in PDUs of at most step bytes.
func (i *initiator) answerR2T(h, r2t *bhs, data []byte, step int) {
	i.tb.Helper()
	offset, n := int(r2t.field32(40)), int(r2t.field32(44))
	part := data[offset : offset+n]
	for sn := uint32(0); len(part) > 0; sn++ {
		k := min(step, len(part))
		i.send(dataOutPDU(h, r2t.ttt(), sn, uint32(offset), k == len(part)), nil, part[:k])
		part, offset = part[k:], offset+k
	}
}

// status reads the response of command h, with its Data-In.
func (i *initiator) status(h *bhs) (r *bhs, data []byte) {
	i.tb.Helper()
	for sn := uint32(0); ; {
		r, d := i.recv()
		if r.itt() != h.itt() {
			i.tb.Fatalf("response %x is for task %#x, want %#x", *r, r.itt(), h.itt())
		}
		switch r.opcode() {
		case opDataIn:
			if r.field32(36) != sn || int(r.field32(40)) != len(data) {
				i.tb.Errorf("Data-In with DataSN %d, offset %d; want %d, %d", r.field32(36), r.field32(40), sn, len(data))
			}
			sn++
			data = append(data, d...)
			if r[1]&bitStatus != 0 {
				return r, data
			}
		case opSCSIResponse:
			if got := r.field32(36); got != sn && len(data) > 0 {
				i.tb.Errorf("ExpDataSN %d, want %d", got, sn)
			}
			if r[3] == statusCheckCondition {
				return r, d
			}
			return r, data
		default:
			i.tb.Fatalf("received opcode %#x for a command", r.opcode())
		}
	}
}

// good fails the test unless status is GOOD without residual.
func (i *initiator) good(h *bhs) []byte {
	i.tb.Helper()
	r, data := i.status(h)
	if r[3] != statusGood || r[1]&(bitOverflow|bitUnderflow) != 0 {
		i.tb.Fatalf("response %x (%x), want GOOD without residual", *r, data[:min(len(data), 64)])
	}
	return data
}

// senseOf returns key, ASC and ASCQ of a CHECK CONDITION.
func (i *initiator) senseOf(h *bhs) senseCode {
	i.tb.Helper()
	r, d := i.status(h)
	if r[3] != statusCheckCondition || len(d) < 2+14 {
		i.tb.Fatalf("response %x %x, want CHECK CONDITION", *r, d)
	}
	return senseCode{d[2+2], d[2+12], d[2+13]}
}

// writeBlocks writes data by WRITE(10) as immediate data.
func (i *initiator) writeBlocks(lba uint32, data []byte) {
	i.tb.Helper()
	h := i.command(bitWrite, uint32(len(data)), write10(lba, uint16(len(data)/memBlock))...)
	i.send(h, nil, data)
	i.good(h)
}

func (i *initiator) readBlocks(lba uint32, n int) []byte {
	i.tb.Helper()
	h := i.command(bitRead, uint32(n*memBlock), read10(lba, uint16(n))...)
	i.send(h, nil, nil)
	return i.good(h)
}

// alive checks that the session still works.
func (i *initiator) alive() {
	i.tb.Helper()
	if got := i.readBlocks(0, 1); len(got) != memBlock {
		i.tb.Fatalf("read %d bytes", len(got))
	}
}

func (i *initiator) logout() {
	i.tb.Helper()
	h := i.request(opLogout)
	i.send(h, nil, nil)
	r, _ := i.expect(opLogoutResponse)
	if r.itt() != h.itt() || r[2] != 0 {
		i.tb.Fatalf("logout answered with %x", *r)
	}
	i.expectClosed()
}

// pattern returns n bytes without a period that is a power of two.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((i + seed) * 31 % 251)
	}
	return b
}

func mustEqual(tb testing.TB, what string, got, want []byte) {
	tb.Helper()
	if !bytes.Equal(got, want) {
		n := 0
		for n < len(got) && n < len(want) && got[n] == want[n] {
			n++
		}
		tb.Fatalf("%s: %d bytes, want %d; first difference at %d", what, len(got), len(want), n)
	}
}

// lines formats the text of a login or text response for comparison.
func lines(data []byte) string {
	return strings.ReplaceAll(strings.TrimSuffix(string(data), "\x00"), "\x00", " ")
}
