package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"odx/admin"
	"odx/initiator"
	"odx/target"
)

// blocks512 is the logical block length of LUNs 0 and 1 in bytes.
const blocks512 = 512

// Values of COPY OPERATION STATUS (SPC-4 r37 table 224).
const (
	running    = 0x12 // in the background
	terminated = 0x60
)

// copier sends third-party copy commands to a LUN.
type copier struct {
	t       *testing.T
	session *initiator.Session
}

// do returns the parameter data, or false for a command that is refused.
func (c *copier) do(cdb, out []byte) ([]byte, bool) {
	c.t.Helper()
	command := initiator.Command{CDB: cdb, Out: out}
	if out == nil && cdb[0] != 0x83 {
		command.In = make([]byte, 1024)
	}
	err := c.session.Do(c.t.Context(), &command)
	if sense := (*initiator.SenseError)(nil); errors.As(err, &sense) {
		if sense.Key != 6 { // UNIT ATTENTION
			return nil, false
		}
		return c.do(cdb, out)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return command.In[:command.Received], true
}

// send sends a parameter list of THIRD-PARTY COPY OUT.
func (c *copier) send(action byte, listID uint32, list []byte) {
	c.t.Helper()
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, action
	binary.BigEndian.PutUint32(cdb[6:], listID)
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
	if _, ok := c.do(cdb, list); !ok {
		c.t.Fatalf("service action %#x is refused", action)
	}
}

// report returns COPY OPERATION STATUS and TRANSFER COUNT in bytes, by RECEIVE ROD TOKEN
// INFORMATION or RECEIVE COPY STATUS(LID4).
func (c *copier) report(action byte, listID uint32) (status byte, count int64) {
	c.t.Helper()
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x84, action
	binary.BigEndian.PutUint32(cdb[2:], listID)
	binary.BigEndian.PutUint32(cdb[10:], 1024)
	p, ok := c.do(cdb, nil)
	if !ok || len(p) < 32 {
		c.t.Fatalf("service action %#x: %x", action, p)
	}
	count = int64(binary.BigEndian.Uint64(p[16:]))
	if p[15] == 0xF1 { // blocks of the destination
		count *= blocks512
	}
	return p[5] & 0x7F, count
}

// abort is COPY OPERATION ABORT; false: the operation had ended.
func (c *copier) abort(listID uint32) bool {
	c.t.Helper()
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, 0x1C
	binary.BigEndian.PutUint32(cdb[2:], listID)
	_, ok := c.do(cdb, nil)
	return ok
}

// cscd returns the NAA designator of the logical unit, as an identification CSCD descriptor.
func (c *copier) cscd() []byte {
	c.t.Helper()
	page, ok := c.do([]byte{0x12, 1, 0x83, 4, 0, 0}, nil)
	for p := page[min(4, len(page)):]; ok && len(p) >= 4; p = p[4+int(p[3]):] {
		if p[1]&0x3F == 3 { // NAA of the logical unit
			d := make([]byte, 32)
			d[0], d[4], d[5], d[7] = 0xE4, p[0]&0xF, p[1]&0x3F, p[3]
			copy(d[8:28], p[4:4+int(p[3])])
			d[30] = blocks512 >> 8
			return d
		}
	}
	c.t.Fatalf("no NAA in % x", page)
	return nil
}

// dialCopier logs in to a LUN of the first portal of s.
func dialCopier(t *testing.T, s *target.Service, lun int) *copier {
	t.Helper()
	url, err := initiator.ParseURL(fmt.Sprintf("iscsi://%s/iqn.2026-11.example.odx:disks/%d", s.Portals()[0], lun))
	if err != nil {
		t.Fatal(err)
	}
	session, err := initiator.Dial(t.Context(), initiator.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return &copier{t, session}
}

// An aborted copy has one count: the report of the initiator has it, the counters of the
// API grow by it, and the destination has these bytes.
func TestCopyStats_Aborted(t *testing.T) {
	const length, segment = 60 << 20, 1 << 20
	const shift = blocks512 // against the source, so that bytes are moved
	dir := t.TempDir()
	s := openWith(t, dir, "[{lun: 0, volume: src, size: 64MiB}, {lun: 1, volume: dst, size: 64MiB}]")
	fill(t, s, length)
	_, client := serve(t, dir, s)
	source, destination := dialCopier(t, s, 0), dialCopier(t, s, 1)
	want := content(length)
	cscds := append(source.cscd(), destination.cscd()...)
	for name, tt := range map[string]struct {
		receive byte
		begin   func(t *testing.T, listID uint32)
		bytes   func(admin.CopyCommands) uint64
	}{
		"WRITE USING TOKEN": {0x07, func(t *testing.T, listID uint32) {
			made, err := client.CreateToken(t.Context(), admin.TokenRequest{Volume: "src", Offset: 4096, Length: length})
			if err != nil {
				t.Fatal(err)
			}
			list := make([]byte, 552)
			binary.BigEndian.PutUint16(list, uint16(len(list)-2))
			list[2] = 1 // IMMED
			copy(list[16:], made.Token)
			binary.BigEndian.PutUint16(list[534:], 16)
			binary.BigEndian.PutUint64(list[536:], shift/blocks512)
			binary.BigEndian.PutUint32(list[544:], length/blocks512)
			destination.send(0x11, listID, list)
		}, func(c admin.CopyCommands) uint64 { return c.WrittenBytes }},
		"EXTENDED COPY": {0x05, func(_ *testing.T, listID uint32) {
			list := make([]byte, 48)
			list[0], list[3], list[15], list[16] = 1, 0x20, 1, 0xFF // IMMED
			binary.BigEndian.PutUint32(list[20:], listID)
			binary.BigEndian.PutUint16(list[42:], uint16(len(cscds)))
			list = append(list, cscds...)
			for off := uint64(0); off < length; off += segment {
				d := make([]byte, 32) // block device to block device with offset
				d[0], d[3], d[5], d[7] = 0x0A, 28, 1, 2
				binary.BigEndian.PutUint32(d[8:], segment)
				binary.BigEndian.PutUint64(d[12:], (4096+off)/blocks512)
				binary.BigEndian.PutUint64(d[20:], (shift+off)/blocks512)
				list = append(list, d...)
			}
			binary.BigEndian.PutUint16(list[44:], uint16(len(list)-48-len(cscds)))
			destination.send(0x01, listID, list)
		}, func(c admin.CopyCommands) uint64 { return c.ExtendedBytes }},
	} {
		t.Run(name, func(t *testing.T) {
			for listID := uint32(1); ; listID++ {
				if err := client.ZeroVolume(t.Context(), "dst", 0, 64<<20); err != nil {
					t.Fatal(err)
				}
				before, err := client.CopyStats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				tt.begin(t, listID)
				status, count := destination.report(tt.receive, listID)
				for status == running && count == 0 {
					status, count = destination.report(tt.receive, listID)
				}
				if !destination.abort(listID) {
					t.Logf("the copy has ended, with status %#x, before its abort", status)
					continue
				}
				status, count = destination.report(tt.receive, listID)
				after, err := client.CopyStats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if n := tt.bytes(after.Commands) - tt.bytes(before.Commands); status != terminated || count == 0 || count >= length || n != uint64(count) {
					t.Errorf("report: status %#x, %d bytes; the API counts %d bytes", status, count, n)
				}
				if after.Commands.Aborted != before.Commands.Aborted+1 || after.Commands.Partial != before.Commands.Partial+1 {
					t.Errorf("counted %+v", after.Commands)
				}
				got := make([]byte, maxData)
				for off := int64(0); off < count; off += int64(len(got)) {
					got = got[:min(int64(len(got)), count-off)]
					if err := client.ReadVolume(t.Context(), "dst", got, shift+off); err != nil || !bytes.Equal(got, want[off:off+int64(len(got))]) {
						t.Fatalf("wrong data from byte %d, %v", off, err)
					}
				}
				return
			}
		})
	}
}
