package iscsi

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
)

// The table has text and its key=value pairs (RFC 7143 6.1).
func TestParseText(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // "key=value" joined by blanks; "error"
	}{
		{"", ""},
		{"a=1\x00", "a=1"},
		{"a=1\x00b=\x00c=x=y\x00", "a=1 b= c=x=y"},
		{"a=1\x00\x00\x00b=2", "a=1 b=2"},
		{"\x00", ""},
		{"a\x00", "error"},
		{"=1\x00", "error"},
		{strings.Repeat("k", 63) + "=1\x00", strings.Repeat("k", 63) + "=1"},
		{strings.Repeat("k", 64) + "=1\x00", "error"},
		{strings.Repeat("a=1\x00", maxTextKeys), strings.TrimSpace(strings.Repeat("a=1 ", maxTextKeys))},
		{strings.Repeat("a=1\x00", maxTextKeys+1), "error"},
		{"a=" + strings.Repeat("1", maxTextLength), "error"},
	} {
		t.Run(fmt.Sprintf("%.40q", c.in), func(t *testing.T) {
			pairs, err := parseText([]byte(c.in))
			var got []string
			for _, p := range pairs {
				got = append(got, p.key+"="+p.value)
			}
			s := strings.Join(got, " ")
			if err != nil {
				s = "error"
			}
			if s != c.want {
				t.Errorf("%.80q: %.80q, want %.80q", c.in, s, c.want)
			}
		})
	}
}

// text sends a text request and returns the complete response.
func (i *initiator) text(keys ...string) string {
	i.tb.Helper()
	h := i.request(opText)
	i.send(h, nil, text(keys...))
	var all []byte
	for {
		r, data := i.expect(opTextResponse)
		if r.itt() != h.itt() {
			i.tb.Fatalf("text response %x", *r)
		}
		all = append(all, data...)
		if r[1] == bitFinal {
			if r.ttt() != reservedTag {
				i.tb.Errorf("final text response has tag %#x", r.ttt())
			}
			return lines(all)
		}
		if r[1] != bitContinue || r.ttt() == reservedTag {
			i.tb.Fatalf("text response %x", *r)
		}
		next := i.request(opText)
		next.put32(16, h.itt())
		next.put32(20, r.ttt())
		i.send(next, nil, nil)
	}
}

// discovery logs in to a discovery session.
func (b *bench) discovery(keys ...string) *initiator {
	b.tb.Helper()
	i := b.dial()
	i.login(append([]string{name, discover}, keys...)...)
	return i
}

// All forms of the request, in both session types (RFC 7143 Appendix C).
func TestSendTargets(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		one := "TargetName=" + testTarget + " TargetAddress=" + b.addr + ",7"
		two := "TargetName=" + testTarget + "2 TargetAddress=" + b.addr + ",7"
		d, s := b.discovery(), b.login()
		for _, c := range []struct {
			i         *initiator
			ask, want string
		}{
			{d, "SendTargets=All", one + " " + two},
			{d, "SendTargets=all", one + " " + two},
			{d, "SendTargets=" + testTarget + "2", two},
			{d, "SendTargets=" + testTarget + "3", ""},
			{d, "SendTargets=", "SendTargets=Reject"},
			{s, "SendTargets=", one},
			{s, "SendTargets=" + testTarget, one},
			{s, "SendTargets=" + testTarget + "2", "SendTargets=Reject"},
			{s, "SendTargets=All", "SendTargets=Reject"},
			{s, "X-what=1", "X-what=NotUnderstood"},
			{s, "HeaderDigest=CRC32C", "HeaderDigest=Reject"},
			{s, "MaxRecvDataSegmentLength=100", "MaxRecvDataSegmentLength=Reject"},
			{s, "InitiatorAlias=x", ""},
			{s, "", ""},
		} {
			if got := c.i.text(c.ask); got != c.want {
				t.Errorf("%s: %q, want %q", c.ask, got, c.want)
			}
		}
		d.logout()
		s.alive()
	})
}

// Request and response are longer than a PDU.
func TestText_LongText(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.discovery("MaxRecvDataSegmentLength=512")
		var want []string
		keys := []string{"SendTargets=All"}
		for n := range 40 {
			k := "X-com.example.key" + string(rune('a'+n%26)) + string(rune('a'+n/26))
			keys = append(keys, k+"=1")
			want = append(want, k+"=NotUnderstood")
		}
		all := i.text(keys...)
		if !strings.HasSuffix(all, strings.Join(want, " ")) || !strings.HasPrefix(all, "TargetName="+testTarget) {
			t.Errorf("answer %q", all)
		}

		// The request is split within a key.
		whole := text("SendTargets=" + testTarget)
		h := i.request(opText)
		h[1] = bitContinue
		i.send(h, nil, whole[:5])
		r, data := i.expect(opTextResponse)
		if len(data) > 0 || r[1] != 0 || r.ttt() == reservedTag {
			t.Fatalf("response to the first part: %x %q", *r, data)
		}
		next := i.request(opText)
		next.put32(16, h.itt())
		next.put32(20, r.ttt())
		i.send(next, nil, whole[5:])
		if _, data = i.expect(opTextResponse); lines(data) != "TargetName="+testTarget+" TargetAddress="+b.addr+",7" {
			t.Errorf("answer %q", data)
		}
		i.logout()
	})
}

// Invalid requests are rejected, and the session continues.
func TestText_Errors(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login()
		h := i.request(opText)
		h.put32(20, 12345)
		i.send(h, nil, nil)
		if r, _ := i.expect(opReject); r[2] != rejectInvalidPDUField {
			t.Errorf("unknown tag: reject %x", *r)
		}
		i.send(i.request(opText), nil, make([]byte, maxTextLength+1))
		if r, _ := i.expect(opReject); r[2] != rejectOutOfResources {
			t.Errorf("long text: reject %x", *r)
		}
		if got := i.text("SendTargets="); got == "" {
			t.Error("no answer afterwards")
		}
		i.send(i.request(opText), nil, text("nonsense"))
		if r, _ := i.expect(opReject); r[2] != rejectProtocolError {
			t.Errorf("no key=value: reject %x", *r)
		}
		i.expectClosed()
	})
}

// Discovery through a wildcard portal reports the address of the connection.
func TestSendTargets_WildcardPortal(t *testing.T) {
	b := newBench(t, nil, nil)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.srv.Serve(ctx, Portal{Listener: l, Group: 7}) }()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	at := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}
	first := b.addr
	b.addr = at.String()
	i := b.discovery()
	if got := i.text("SendTargets=" + testTarget); got != "TargetName="+testTarget+" TargetAddress="+b.addr+",7 TargetAddress="+first+",7" {
		t.Errorf("answer %q", got)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if got := i.text("SendTargets=" + testTarget); got != "TargetName="+testTarget+" TargetAddress="+first+",7" {
		t.Errorf("answer %q", got) // the connection continues, but the portal is closed
	}
	i.logout()
}

// Requests of normal sessions are rejected in a discovery session.
func TestDiscovery_Refused(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		for _, op := range []byte{opSCSICommand, opTMFRequest} {
			i := b.discovery()
			i.send(i.request(op), nil, nil)
			if r, _ := i.expect(opReject); r[2] != rejectProtocolError {
				t.Errorf("opcode %d: reject %x", op, *r)
			}
			i.expectClosed()
		}
	})
}

// The table has the reasons of a logout (RFC 7143 11.14.1).
func TestLogout(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login()
		for _, c := range []struct{ reason, cid, want byte }{{2, 0, 2}, {1, 9, 1}} {
			h := i.request(opLogout)
			h[1] |= c.reason
			h.put16(20, uint16(c.cid))
			i.send(h, nil, nil)
			if r, _ := i.expect(opLogoutResponse); r[2] != c.want {
				t.Errorf("reason %d, CID %d: response %d", c.reason, c.cid, r[2])
			}
		}
		i.alive()
		h := i.request(opLogout)
		h[1] |= 1
		h.put16(20, 0)
		i.send(h, nil, nil)
		if r, _ := i.expect(opLogoutResponse); r[2] != 0 {
			t.Errorf("response %d", r[2])
		}
		// The nexus was detached before the response.
		if n := b.disk.nexuses(); n != 0 {
			t.Errorf("%d nexuses", n)
		}
		i.expectClosed()
		i = b.login()
		h = i.request(opLogout)
		h[1] |= 9
		i.send(h, nil, nil)
		i.expect(opReject)
		i.expectClosed()
	})
}

// A malformed PDU ends its connection with a Reject, and no other.
func TestConn_Malformed(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		witness := b.loginAs(testInitiator + "2")
		for _, c := range []struct {
			name   string
			reason byte
			pdu    func(i *initiator) (*bhs, []byte, []byte)
		}{
			{"unknown opcode", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) { return i.request(0x1d), nil, nil }},
			{"target's opcode", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) { return i.request(opDataIn), nil, nil }},
			{"login", rejectProtocolError, func(i *initiator) (*bhs, []byte, []byte) { return i.loginRequest(1, 3), nil, nil }},
			{"AHS of no type", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				return i.command(bitRead, 512, read10(0, 1)...), []byte{0, 1, 9, 0}, nil
			}},
			{"AHS too long", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				return i.command(bitRead, 512, read10(0, 1)...), []byte{1, 0, 1, 0}, nil
			}},
			{"AHS of no length", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				return i.command(bitRead, 512, read10(0, 1)...), []byte{0, 0, 1, 0}, nil
			}},
			{"extended CDB too long", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				return i.command(bitRead, 512, read10(0, 1)...), append([]byte{1, 245, 1, 0}, make([]byte, 500)...), nil
			}},
			{"no write, not final", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				h := i.command(bitRead, 512, read10(0, 1)...)
				h[1] &^= bitFinal
				return h, nil, nil
			}},
			{"text with F and C", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				h := i.request(opText)
				h[1] |= bitContinue
				return h, nil, nil
			}},
			{"data segment too long", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				return i.request(opNopOut), nil, make([]byte, 256<<10+1)
			}},
			{"Data-Out for another tag", rejectInvalidPDUField, func(i *initiator) (*bhs, []byte, []byte) {
				h := i.command(bitWrite, 1<<20, write10(0, 2048)...)
				i.send(h, nil, nil)
				r, _ := i.expect(opR2T)
				return dataOutPDU(h, r.ttt()+1, 0, 0, true), nil, make([]byte, 512)
			}},
		} {
			i := b.login()
			h, ahs, data := c.pdu(i)
			wire := encode(h, ahs, data, false, false)
			i.nc.Write(wire) // may fail: the target need not read everything
			r, d := i.expect(opReject)
			if r[2] != c.reason || *(*bhs)(d) != *h {
				t.Errorf("%s: reject %x %x", c.name, *r, d)
			}
			i.expectClosed()
		}
		witness.alive()
	})
}

// SNACK is rejected: error recovery level 0 has no retransmission.
func TestConn_SNACK(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, b *bench) {
		i := b.login()
		h := i.request(opSNACK)
		i.cmdSN-- // SNACK has no CmdSN
		i.send(h, nil, nil)
		if r, d := i.expect(opReject); r[2] != rejectSNACK || (*bhs)(d).itt() != h.itt() {
			t.Errorf("reject %x %x", *r, d)
		}
		i.alive()
		// Data-Out for an unknown task is dropped, as after an abort that the initiator
		// does not know of.
		i.send(dataOutPDU(h, 5, 0, 0, true), nil, make([]byte, 100))
		i.alive()
	})
}
