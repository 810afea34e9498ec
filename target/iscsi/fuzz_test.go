package iscsi

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"odx/target/bufpool"
)

// FuzzPDU reads arbitrary bytes as PDUs. Segments do not exceed their bounds.
func FuzzPDU(f *testing.F) {
	for _, name := range []string{"in-login", "in-command-extended-cdb", "in-data-out", "in-tmf"} {
		_, wire := golden(f, name)
		f.Add(wire, byte(0))
		f.Add(wire, byte(3))
	}
	f.Fuzz(func(t *testing.T, wire []byte, digests byte) {
		r := newReader(&piecewise{wire, 100}, &bufpool.Pool{})
		r.headerDigest, r.dataDigest, r.maxAHS = digests&1 != 0, digests&2 != 0, maxAHSLength
		for {
			var p pdu
			if r.next(&p) != nil {
				return
			}
			if p.left > r.maxData {
				t.Fatalf("data segment of %d bytes", p.left)
			}
			if info, err := parseAHS(p.ahs); err == nil && len(info.extendedCDB) > maxCDBLength-16 {
				t.Fatalf("extended CDB of %d bytes", len(info.extendedCDB))
			}
			if err := p.readData(make([]byte, p.left/2)); err != nil && err != errDataDigest {
				return
			}
		}
	})
}

// FuzzText parses arbitrary bytes as text. The pairs survive encoding and parsing.
func FuzzText(f *testing.F) {
	f.Add(text(name, wantTarget, "SessionType=Normal", "HeaderDigest=CRC32C,None", "MaxBurstLength=0x1000"))
	f.Add([]byte("a=1\x00\x00b=\x00c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := parseText(b)
		if err != nil {
			return
		}
		var again []byte
		o, p := DefaultOptions(), defaultParams()
		for _, k := range pairs {
			again = appendPair(again, k.key, k.value)
			p.negotiate(&o, k, sessionNormal)
		}
		p.clampFirstBurst()
		if p.peerMaxRecv < 512 || p.maxBurst < 512 || p.firstBurst > p.maxBurst || p.maxOutstandingR2T < 1 {
			t.Fatalf("negotiated %+v", p)
		}
		if len(again) > maxTextLength {
			return
		}
		second, err := parseText(again)
		if err != nil || len(second) != len(pairs) {
			t.Fatalf("%q parsed again: %v, %v", again, second, err)
		}
		for i := range pairs {
			if pairs[i] != second[i] {
				t.Fatalf("%q became %q", pairs[i], second[i])
			}
		}
	})
}

// script is a connection whose peer sends fixed bytes and receives nothing.
type script struct {
	net.Conn // never used
	in       *bytes.Reader
	closed   chan struct{}
}

func (s *script) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error)      { return len(b), nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (s *script) RemoteAddr() net.Addr             { return s.LocalAddr() }
func (s *script) Close() error                     { close(s.closed); return nil }

// play serves a peer that sends wire, and waits for the end of the connection.
func (b *bench) play(t *testing.T, wire []byte) {
	s := &script{in: bytes.NewReader(wire), closed: make(chan struct{})}
	b.srv.open(s, b.portal())
	select {
	case <-s.closed:
	case <-time.After(patience):
		t.Fatal("the connection did not end")
	}
}

// FuzzLogin serves arbitrary bytes as a login.
func FuzzLogin(f *testing.F) {
	b := newBench(f, nil, nil)
	i := &initiator{cmdSN: 1}
	login := func(stage, next int, keys ...string) []byte {
		return encode(i.loginRequest(stage, next), nil, text(keys...), false, false)
	}
	f.Add(login(1, 3, name, wantTarget))
	f.Add(append(login(0, 1, name, wantTarget, "AuthMethod=None"), login(1, 3, "InitialR2T=No", "DataDigest=CRC32C")...))
	f.Add(login(1, 3, name, discover, "X-unknown=1"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		b.play(t, wire)
	})
}

// FuzzSession serves arbitrary bytes as the PDUs of a session.
func FuzzSession(f *testing.F) {
	b := newBench(f, nil, nil)
	for n := range 40 {
		f.Add(bytes.Join(samplePDUs(rand.New(rand.NewPCG(1, uint64(n))), &initiator{cmdSN: 100}), nil))
	}
	first := &initiator{cmdSN: 100, isid: [6]byte{0x80}}
	login := encode(first.loginRequest(1, 3), nil, text(name, wantTarget, "InitialR2T=No"), false, false)
	f.Fuzz(func(t *testing.T, wire []byte) {
		b.play(t, append(bytes.Clone(login), wire...))
	})
}

// samplePDUs returns the valid PDUs of a small exchange.
func samplePDUs(rng *rand.Rand, i *initiator) [][]byte {
	plain := func(h *bhs, data []byte) []byte { return encode(h, nil, data, false, false) }
	switch rng.IntN(8) {
	case 0:
		return [][]byte{plain(i.command(bitRead, 4096, read10(rng.Uint32N(4000), 8)...), nil)}
	case 1:
		return [][]byte{plain(i.command(bitWrite, 1024, write10(rng.Uint32N(4000), 2)...), make([]byte, 1024))}
	case 2:
		h := i.command(bitWrite, 1024, write10(0, 2)...)
		h[1] &^= bitFinal
		return [][]byte{plain(h, make([]byte, 512)), plain(dataOutPDU(h, reservedTag, 0, 512, true), make([]byte, 512))}
	case 3:
		h := i.command(bitWrite, 4096, write10(0, 8)...)
		return [][]byte{plain(h, make([]byte, 512)), plain(dataOutPDU(h, rng.Uint32N(20), 0, 512, true), make([]byte, 3584))}
	case 4:
		return [][]byte{plain(i.request(opNopOut), make([]byte, rng.IntN(200)))}
	case 5:
		return [][]byte{plain(i.request(opText), text("SendTargets="))}
	case 6:
		h := i.request(opTMFRequest | bitImmediate)
		h[1] |= byte(1 + rng.IntN(8))
		h.put32(20, i.itt-1)
		h.put32(32, i.cmdSN-1)
		return [][]byte{plain(h, nil)}
	default:
		h := i.command(bitWrite, memBlock, 0x7f)
		ahs := append([]byte{0, 17, ahsExtendedCDB, 0}, make([]byte, 16)...)
		return [][]byte{encode(h, ahs, make([]byte, memBlock), false, false)}
	}
}

// mutate changes a few bytes, mostly of the header.
func mutate(rng *rand.Rand, wire []byte) {
	for range 1 + rng.IntN(4) {
		at := rng.IntN(bhsLength)
		if rng.IntN(4) == 0 {
			at = rng.IntN(len(wire))
		}
		switch rng.IntN(3) {
		case 0:
			wire[at] ^= 1 << rng.IntN(8)
		case 1:
			wire[at] = byte(rng.Uint32())
		default:
			wire[at] = []byte{0, 0xff, 0x7f, 0x80}[rng.IntN(4)]
		}
	}
}

// 10,000 mutated PDUs, in logins and in sessions, do not stop the server, its memory
// remains bounded, and a new login succeeds.
func TestServer_MutatedPDUs(t *testing.T) {
	const wanted = 10000
	b := newBench(t, nil, nil)
	// On the other target: a PDU may become a TARGET COLD RESET.
	witness := b.dial()
	witness.login("InitiatorName="+testInitiator+".witness", "TargetName="+testTarget+"2")
	rng := rand.New(rand.NewPCG(20261101, 3))
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for sent := 0; sent < wanted; {
		i := b.dial()
		i.isid[5] = byte(rng.Uint32())
		i.isid[4] = byte(rng.Uint32())
		if rng.IntN(4) == 0 {
			wire := encode(i.loginRequest(1, 3), nil, text(name, wantTarget, "InitialR2T=No"), false, false)
			mutate(rng, wire)
			i.nc.Write(wire) // may fail
			i.nc.Close()
			sent++
			continue
		}
		i.login(name, wantTarget, "InitialR2T=No", "ImmediateData=Yes")
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			io.Copy(io.Discard, i.nc) // until the target or the test closes it
		}()
		// A few per connection, since most of them end it.
		for range 1 + rng.IntN(3) {
			for _, wire := range samplePDUs(rng, i) {
				mutate(rng, wire)
				if h := (*bhs)(wire); h.opcode() == opTMFRequest && h[1]&0x7f == tmfTargetColdReset {
					continue // would end the next session
				}
				if _, err := i.nc.Write(wire); err != nil {
					break
				}
				sent++
			}
		}
		if err := i.nc.(*net.TCPConn).CloseWrite(); err != nil {
			i.nc.Close()
		}
		<-drained
		i.nc.Close()
	}
	witness.isAlive() // it may have been pinged
	witness.alive()
	b.login().alive()
	eventually(t, "all other sessions have ended", func() bool { return len(b.srv.Sessions()) == 2 })
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}
