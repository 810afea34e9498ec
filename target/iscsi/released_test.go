package iscsi

import "testing"

// textPart sends a part of a text negotiation and returns the response. ttt continues a
// negotiation.
func (i *initiator) textPart(flags byte, itt, ttt uint32, data []byte) *bhs {
	i.tb.Helper()
	h := i.request(opText)
	h[1] = flags
	if ttt != reservedTag {
		h.put32(16, itt)
		h.put32(20, ttt)
	}
	i.send(h, nil, data)
	r, _ := i.expect(opTextResponse)
	return r
}

// After each kind of exchange no memory is held, while the session continues.
func TestMemory_Released(t *testing.T) {
	all, one := text("SendTargets=All"), text("SendTargets="+testTarget)
	b := newBench(t, nil, nil)
	for name, exchange := range map[string]func(t *testing.T, i *initiator){
		"text, F=1": func(_ *testing.T, i *initiator) { i.text("SendTargets=All") },
		"text without a response": func(_ *testing.T, i *initiator) {
			i.text("InitiatorAlias=x")
		},
		"text, F=0": func(_ *testing.T, i *initiator) {
			i.textPart(0, 0, reservedTag, all)
		},
		"text, F=0, continued": func(t *testing.T, i *initiator) {
			r := i.textPart(0, 0, reservedTag, all)
			for _, flags := range []byte{0, 0, bitFinal} {
				if r[1] != 0 || r.ttt() == reservedTag {
					t.Fatalf("response %x to F=0", *r)
				}
				r = i.textPart(flags, r.itt(), r.ttt(), one)
			}
			if r[1] != bitFinal || r.ttt() != reservedTag {
				t.Errorf("response %x to F=1", *r)
			}
		},
		"text, F=0, then another negotiation": func(_ *testing.T, i *initiator) {
			i.textPart(0, 0, reservedTag, all)
			i.text("SendTargets=All")
		},
		"text, C=1, continued": func(_ *testing.T, i *initiator) {
			r := i.textPart(bitContinue, 0, reservedTag, all[:5])
			i.textPart(bitFinal, r.itt(), r.ttt(), all[5:])
		},
		"text, C=1, then another negotiation": func(_ *testing.T, i *initiator) {
			i.textPart(bitContinue, 0, reservedTag, all[:5])
			i.text("SendTargets=All")
		},
		"text, F=0, wrong tag": func(t *testing.T, i *initiator) {
			r := i.textPart(0, 0, reservedTag, all)
			h := i.request(opText)
			h.put32(20, r.ttt()+1)
			i.send(h, nil, nil)
			if r, _ := i.expect(opReject); r[2] != rejectInvalidPDUField {
				t.Errorf("reject %x", *r)
			}
		},
		"text, too long": func(_ *testing.T, i *initiator) {
			i.textPart(0, 0, reservedTag, all)
			i.send(i.request(opText), nil, make([]byte, maxTextLength+1))
			i.expect(opReject)
		},
		"ping with data": func(_ *testing.T, i *initiator) {
			i.send(i.request(opNopOut), nil, pattern(0, 4096))
			i.expect(opNopIn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := b.discovery("MaxRecvDataSegmentLength=512")
			exchange(t, i)
			eventually(t, "nothing is held", func() bool { return b.srv.BufferedBytes() == 0 })
			i.logout()
		})
	}
}

// After each kind of command no memory is held, while the session continues.
func TestMemory_ReleasedByCommands(t *testing.T) {
	b := newBench(t, nil, nil)
	for name, command := range map[string]func(i *initiator){
		"read":                  func(i *initiator) { i.readBlocks(0, 64) },
		"immediate write":       func(i *initiator) { i.writeBlocks(0, pattern(0, 4096)) },
		"REPORT LUNS, cut off":  func(i *initiator) { i.status(sendCommand(i, i.command(bitRead, 8, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16))) },
		"solicited write":       func(i *initiator) { i.stream(write10(0, 256), pattern(0, 128<<10), 0) },
		"read beyond the end":   func(i *initiator) { i.senseOf(sendCommand(i, i.command(bitRead, 512, read10(1<<30, 1)...))) },
		"unknown command":       func(i *initiator) { i.senseOf(sendCommand(i, i.command(bitRead, 512, 0xff))) },
		"write to the wrong LU": func(i *initiator) { i.wrongLUN() },
		"write, aborted": func(i *initiator) {
			h := sendCommand(i, i.command(bitWrite, 128<<10, write10(0, 256)...))
			i.expect(opR2T)
			i.tmfResponse(i.tmf(tmfAbortTask, [8]byte{}, h))
		},
		"write, too early, then the missing command": func(i *initiator) {
			gap := i.request(opNopOut)
			h := i.command(bitWrite, 4096, write10(0, 8)...)
			i.send(h, nil, pattern(0, 4096))
			i.send(gap, nil, nil)
			i.expect(opNopIn)
			i.good(h)
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := b.login("MaxRecvDataSegmentLength=8192", "ImmediateData=Yes")
			command(i)
			eventually(t, "nothing is held", func() bool { return b.srv.BufferedBytes() == 0 })
			i.alive()
			i.logout()
		})
	}
}

// wrongLUN writes to a logical unit that does not exist.
func (i *initiator) wrongLUN() {
	i.tb.Helper()
	h := i.command(bitWrite, 4096, write10(0, 8)...)
	h[9] = 1
	i.send(h, nil, pattern(0, 4096))
	i.senseOf(h)
}

// A connection that ends within a negotiation or a command releases what it holds, while
// the server continues.
func TestMemory_ReleasedByDisconnect(t *testing.T) {
	b := newBench(t, nil, nil)
	for name, begin := range map[string]func(i *initiator){
		"text response with C=1": func(i *initiator) {
			keys := []string{"SendTargets=All"}
			for k := range 40 {
				keys = append(keys, "X-com.example.key"+string(rune('A'+k))+"=1")
			}
			h := i.request(opText)
			i.send(h, nil, text(keys...))
			if r, _ := i.expect(opTextResponse); r[1] != bitContinue {
				i.tb.Fatalf("response %x", *r)
			}
			if b.srv.BufferedBytes() == 0 {
				i.tb.Error("the unsent response is not charged")
			}
		},
		"text, F=0": func(i *initiator) {
			i.textPart(0, 0, reservedTag, text("SendTargets="))
		},
		"text, twice the same key": func(i *initiator) {
			i.send(i.request(opText), nil, text("SendTargets=", "SendTargets="))
			if r, _ := i.expect(opReject); r[2] != rejectProtocolError {
				i.tb.Errorf("reject %x", *r)
			}
		},
		"half of the data of a ping": func(i *initiator) {
			wire := encode(i.request(opNopOut), nil, pattern(0, 4096), false, false)
			i.write(wire[:len(wire)/2])
		},
		"write without its data": func(i *initiator) {
			sendCommand(i, i.command(bitWrite, 128<<10, write10(0, 256)...))
			i.expect(opR2T)
		},
		"write that is too early": func(i *initiator) {
			i.cmdSN++
			i.send(i.command(bitWrite, 4096, write10(0, 8)...), nil, pattern(0, 4096))
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := b.login("MaxRecvDataSegmentLength=512")
			begin(i)
			i.nc.Close()
			eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 0 })
			eventually(t, "nothing is held", func() bool { return b.srv.BufferedBytes() == 0 })
		})
	}
}
