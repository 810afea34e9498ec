package iscsi

import (
	"fmt"
)

// multi is the initiator's side of a session with several connections, which share
// CmdSN and task tags.
type multi struct {
	*bench
	cmdSN, itt uint32
	conns      []*initiator
	// from is the address of further connections, if not empty.
	from string
}

// loginMulti logs in with n connections, CID 0 to n-1. Odd ones use digests.
func (b *bench) loginMulti(n int, keys ...string) *multi {
	b.tb.Helper()
	m := &multi{bench: b}
	lead := b.login(append([]string{"MaxConnections=8"}, keys...)...)
	m.cmdSN, m.conns = lead.cmdSN, []*initiator{lead}
	for cid := 1; cid < n; cid++ {
		m.join(uint16(cid))
	}
	return m
}

// join adds a connection.
func (m *multi) join(cid uint16) *initiator {
	m.tb.Helper()
	i, r, data := m.tryJoin(cid)
	if r.field16(36) != loginSuccess || r.field16(14) != m.conns[0].tsih {
		m.tb.Fatalf("login of connection %d answered with %x %q", cid, *r, data)
	}
	i.loggedIn(r, data)
	m.conns = append(m.conns, i)
	return i
}

func (m *multi) tryJoin(cid uint16, more ...string) (*initiator, *bhs, []byte) {
	m.tb.Helper()
	i := m.dialFrom(m.from)
	i.tsih, i.cmdSN = m.conns[0].tsih, m.cmdSN
	h := i.loginRequest(stageOperational, stageFullFeature)
	h.put16(20, cid)
	digest := []string{"None", "CRC32C"}[cid%2]
	i.send(h, nil, text(append([]string{name, wantTarget, "HeaderDigest=" + digest, "DataDigest=" + digest}, more...)...))
	r, data := i.expect(opLoginResponse)
	return i, r, data
}

// on returns connection n, ready for the session's next request.
func (m *multi) on(n int) *initiator {
	i := m.conns[n]
	i.cmdSN, i.itt = m.cmdSN, m.itt
	return i
}

// read returns an unsent READ on connection n.
func (m *multi) read(n int, lba uint32) *bhs {
	i := m.on(n)
	h := i.command(bitRead, memBlock, read10(lba, 1)...)
	m.cmdSN, m.itt = i.cmdSN, i.itt
	return h
}

func (m *multi) write(n int, lba uint32, blocks uint16) *bhs {
	i := m.on(n)
	h := i.command(bitWrite, uint32(blocks)*memBlock, write10(lba, blocks)...)
	m.cmdSN, m.itt = i.cmdSN, i.itt
	return h
}

func (m *multi) request(n int, opcode byte) *bhs {
	i := m.on(n)
	h := i.request(opcode)
	m.cmdSN, m.itt = i.cmdSN, i.itt
	return h
}

func (m *multi) tmf(n int, function byte, ref *bhs) *bhs {
	i := m.on(n)
	h := i.tmf(function, [8]byte{}, ref)
	m.itt = i.itt
	return h
}

// alive reads a block on connection n.
func (m *multi) alive(n int) {
	m.tb.Helper()
	h := m.read(n, 0)
	m.conns[n].send(h, nil, nil)
	m.conns[n].good(h)
}

func (m *multi) sessions(n int) {
	m.tb.Helper()
	eventually(m.tb, fmt.Sprintf("the session has %d connections", n), func() bool {
		list := m.srv.Sessions()
		return n == 0 && len(list) == 0 || len(list) == 1 && len(list[0].Connections) == n
	})
}
