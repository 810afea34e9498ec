package iscsi

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"odx/target/bufpool"
	"odx/target/scsi"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the bytes of testdata/pdu/out-*.txt and keep the prose")

// golden reads a file of testdata/pdu: prose, an empty line, and lines of bytes in
// hexadecimal, each optionally with a comment after a semicolon.
func golden(t testing.TB, name string) (prose string, wire []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "pdu", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	prose, dump, _ := strings.Cut(string(b), "\n\n")
	for line := range strings.Lines(dump) {
		line, _, _ = strings.Cut(line, ";")
		part, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wire = append(wire, part...)
	}
	return prose, wire
}

// sink is a connection that stores what is written to it.
type sink struct {
	net.Conn
	bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error)      { return s.Buffer.Write(b) }
func (s *sink) Read([]byte) (int, error)         { return 0, io.EOF }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// sinkConn returns a connection in full feature phase that writes to a sink.
func sinkConn(digests bool) (*conn, *sink) {
	out := &sink{}
	o := DefaultOptions()
	o.BufferBytes = 1 << 20
	srv := newServer(&configuration{options: o})
	c := &conn{srv: srv, nc: out, in: &reader{}, params: defaultParams()}
	c.sess = &session{srv: srv, share: &share{}, tasks: map[uint32]*task{}, nexus: &scsi.Nexus{}}
	c.sess.exp.Store(0x11)
	c.sess.limit.Store(0x90)
	c.out = sender{
		nc: out, pool: srv.pool, budget: srv.budget, pdus: &srv.pdus, owned: srv.owned, window: c.sess.window,
		headerDigest: digests, dataDigest: digests, statSN: 0x51,
	}
	return c, out
}

// commandPDU returns the request of the golden responses.
func commandPDU(flags byte, edtl uint32) *pdu {
	p := &pdu{bhs: bhs{0: opSCSICommand, 1: bitFinal | flags, 9: 3}}
	p.put32(16, 0x1000000a)
	p.put32(20, edtl)
	copy(p.bhs[32:], read10(0x20, 1))
	return p
}

// The bytes in testdata were checked against the layouts of RFC 7143 11.
func TestSender_Golden(t *testing.T) {
	for name, c := range map[string]struct {
		digests bool
		send    func(c *conn)
	}{
		"out-data-in": {false, func(c *conn) {
			task := c.newTask(commandPDU(bitRead, 1024), ahsInfo{})
			copy(task.st.AllocDataIn(6), "abcdef")
			task.queueResponse()
		}},
		"out-data-in-digests": {true, func(c *conn) {
			task := c.newTask(commandPDU(bitRead, 6), ahsInfo{})
			copy(task.st.AllocDataIn(6), "abcdef")
			task.queueResponse()
		}},
		"out-response-sense": {false, func(c *conn) {
			task := c.newTask(commandPDU(bitRead, 512), ahsInfo{})
			task.st.Result = statusCheckCondition
			task.st.SetSense(senseInvalidCDB.fixed())
			task.queueResponse()
		}},
		"out-response-good-sense": {false, func(c *conn) {
			task := c.newTask(commandPDU(bitWrite, 512), ahsInfo{})
			task.st.SetSense(senseInvalidCDB.fixed())
			task.queueResponse()
		}},
		"out-response-overflow": {false, func(c *conn) {
			task := c.newTask(commandPDU(bitWrite, 512), ahsInfo{})
			task.st.Wanted, task.out.r2tSN = 1024, 2
			task.queueResponse()
		}},
		"out-r2t": {false, func(c *conn) {
			task := c.newTask(commandPDU(bitWrite, 4096), ahsInfo{})
			task.out.want, task.out.next = 4096, 1024
			c.ttt = 0x76
			c.sess.solicit(task)
		}},
		"out-reject": {false, func(c *conn) { c.reject(commandPDU(bitRead, 512), rejectTaskInProgress) }},
		"out-nop-in": {false, func(c *conn) {
			p := c.out.get(opNopIn, reservedTag)
			p.put32(20, 0x77)
			c.out.queue(p, statSNNext)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, out := sinkConn(c.digests)
			c.send(conn)
			if err := conn.out.sendWaiting(false); err != nil {
				t.Fatal(err)
			}
			prose, want := golden(t, name)
			if *rewrite {
				rewriteGolden(t, name, prose, out.Bytes())
				return
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%s\n\ngot\n%swant\n%s", prose, hex.Dump(out.Bytes()), hex.Dump(want))
			}
		})
	}
}

// rewriteGolden writes the bytes, four per line as in the RFC, and keeps the comments
// by line number.
func rewriteGolden(t *testing.T, name, prose string, wire []byte) {
	t.Helper()
	file := filepath.Join("testdata", "pdu", name+".txt")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, dump, _ := strings.Cut(string(old), "\n\n")
	var notes []string
	for line := range strings.Lines(dump) {
		_, note, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ";")
		notes = append(notes, note)
	}
	b := []byte(prose + "\n\n")
	for n := 0; len(wire) > 0; n++ {
		k := min(4, len(wire))
		line := fmt.Sprintf("% x", wire[:k])
		if n < len(notes) && notes[n] != "" {
			line = fmt.Sprintf("%-11s ;%s", line, notes[n])
		}
		b = append(b, line+"\n"...)
		wire = wire[k:]
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The bytes in testdata are decoded.
func TestReader_Golden(t *testing.T) {
	for name, c := range map[string]struct {
		digests bool
		data    string
		check   func(p *pdu) bool
	}{
		"in-login": {false, "InitiatorName=iqn.a\x00", func(p *pdu) bool {
			return p.opcode() == opLogin && p.immediate() && p.bhs[1] == toFullFeature|csgOperational &&
				[6]byte(p.bhs[8:14]) == [6]byte{0x80, 0x12, 0x34, 0x56, 0, 7} && p.field16(14) == 0x0102 && p.cid() == 0x0304 && p.cmdSN() == 0x55
		}},
		"in-command-extended-cdb": {true, "wxyz1", func(p *pdu) bool {
			info, err := parseAHS(p.ahs)
			return err == nil && !info.bidirectional && bytes.Equal(info.extendedCDB, []byte("0123456789abcdef")) &&
				p.opcode() == opSCSICommand && p.final() && p.lun() == [8]byte{1: 3} && p.itt() == 0xa && p.expectedDataTransferLength() == 5
		}},
		"in-data-out": {false, "abc", func(p *pdu) bool {
			return p.opcode() == opDataOut && p.final() && p.itt() == 0xa && p.ttt() == 0x77 && p.dataSN() == 2 && p.bufferOffset() == 0x400
		}},
		"in-tmf": {false, "", func(p *pdu) bool {
			return p.opcode() == opTMFRequest && p.immediate() && p.bhs[1]&0x7f == tmfAbortTask && p.referencedTaskTag() == 9 && p.refCmdSN() == 0x54
		}},
	} {
		t.Run(name, func(t *testing.T) {
			prose, wire := golden(t, name)
			r := newReader(bytes.NewReader(wire), &bufpool.Pool{})
			r.maxAHS, r.headerDigest, r.dataDigest = maxAHSLength, c.digests, c.digests
			var p pdu
			if err := r.next(&p); err != nil {
				t.Fatal(err)
			}
			if !c.check(&p) {
				t.Errorf("%s\n\ndecoded as %+v", prose, p)
			}
			data := make([]byte, p.dataSegmentLength())
			if err := p.readData(data); err != nil || string(data) != c.data {
				t.Errorf("data %q, %v; want %q", data, err, c.data)
			}
			if err := r.next(&p); err != io.EOF {
				t.Errorf("after the PDU: %v", err)
			}
		})
	}
}

// The vectors are those of RFC 7143 13.1 (RFC 3720 B.4).
func TestDigest(t *testing.T) {
	ones, up, down := bytes.Repeat([]byte{0xff}, 32), make([]byte, 32), make([]byte, 32)
	for i := range 32 {
		up[i], down[i] = byte(i), byte(31-i)
	}
	for _, c := range []struct {
		in   []byte
		wire string
	}{
		{make([]byte, 32), "aa36918a"},
		{ones, "43aba862"},
		{up, "4e79dd46"},
		{down, "5cdb3f11"},
	} {
		var got [4]byte
		digest(0).add(c.in[:7]).add(c.in[7:]).put(got[:])
		if hex.EncodeToString(got[:]) != c.wire {
			t.Errorf("digest of %x is %x, want %s", c.in, got, c.wire)
		}
	}
}

// PDUs are read from a stream with short reads of every length.
func TestReader_ShortReads(t *testing.T) {
	var stream []byte
	for n := range 40 {
		h := &bhs{0: opNopOut, 1: bitFinal}
		h.put32(16, uint32(n))
		stream = append(stream, encode(h, make([]byte, n%5*4), pattern(n, n*n*7), true, true)...)
	}
	for _, step := range []int{1, 2, 3, 47, 48, 49, 1000, 5000, 1 << 20} {
		r := newReader(&piecewise{stream, step}, &bufpool.Pool{})
		r.maxAHS, r.maxData, r.headerDigest, r.dataDigest = maxAHSLength, 1<<20, true, true
		for n := range 40 {
			if n == 20 {
				r.grow()
			}
			var p pdu
			if err := r.next(&p); err != nil {
				t.Fatalf("pieces of %d, PDU %d: %v", step, n, err)
			}
			data := make([]byte, n*n*7)
			if n%3 == 0 {
				data = data[:len(data)/2] // the rest is dropped
			}
			if err := p.readData(data); err != nil {
				t.Fatalf("pieces of %d, PDU %d: %v", step, n, err)
			}
			if p.itt() != uint32(n) || !bytes.Equal(data, pattern(n, len(data))) {
				t.Fatalf("pieces of %d, PDU %d is wrong", step, n)
			}
		}
		r.release()
	}
}

// piecewise reads from b, at most step bytes at a time.
type piecewise struct {
	b    []byte
	step int
}

func (p *piecewise) Read(dst []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(dst[:min(len(dst), p.step)], p.b)
	p.b = p.b[n:]
	return n, nil
}
