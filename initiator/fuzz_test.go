package initiator

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// pdu is a PDU as a target sends it.
func pdu(h header, data string) []byte {
	var b bytes.Buffer
	h.put32(32, 1000) // MaxCmdSN
	send(&b, &h, []byte(data))
	return b.Bytes()
}

// answers are the answers of a target to a login.
func answers(operational string) []byte {
	return append(pdu(header{0: opLoginResponse, 1: bitTransit | stageOperational}, "AuthMethod=None\x00"),
		pdu(header{0: opLoginResponse, 1: bitTransit | stageOperational<<2 | stageFullFeature}, operational)...)
}

// FuzzTarget: whatever a target sends, a login and two commands end, and
// nothing panics.
func FuzzTarget(f *testing.F) {
	full := answers("ImmediateData=No\x00InitialR2T=Yes\x00MaxBurstLength=512\x00FirstBurstLength=512\x00")
	read := header{0: opDataIn, 1: bitFinal | bitStatus, 19: 1}
	r2t := header{0: opR2T, 1: bitFinal, 19: 2, 46: 2}
	response := header{0: opSCSIResponse, 1: bitFinal, 3: statusCheckCondition, 19: 2}
	sense := string(append(binary.BigEndian.AppendUint16(nil, 18), 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0))
	f.Add(full)
	f.Add(bytes.Join([][]byte{full, pdu(read, "data"), pdu(r2t, ""), pdu(response, sense)}, nil))
	f.Add(append(full, pdu(header{0: opNopIn, 1: bitFinal}, "")...))
	f.Add(append(full, pdu(header{0: opAsync, 1: bitFinal, 36: 1}, "")...))
	f.Add(pdu(header{0: opLoginResponse, 36: 1, 37: 1}, "TargetAddress=elsewhere:1,1\x00"))
	f.Add(pdu(header{0: opLoginResponse, 36: 2, 37: 1}, ""))
	f.Fuzz(func(t *testing.T, input []byte) {
		ours, theirs := net.Pipe()
		go func() {
			theirs.SetWriteDeadline(time.Now().Add(10 * time.Second))
			theirs.Write(input)
			theirs.Close()
		}()
		go io.Copy(io.Discard, theirs)
		s, moved, err := establish(ours, &Options{URL: URL{Target: "iqn.a"}})
		if err != nil || moved != "" {
			return
		}
		p := make([]byte, 4096)
		s.Do(t.Context(), &Command{CDB: cdb16(0x88, 0), In: p})
		s.Do(t.Context(), &Command{CDB: cdb16(0x8a, 0), Out: p})
		s.end()
	})
}

// FuzzTokenInformation: no answer of a target makes its reader panic.
func FuzzTokenInformation(f *testing.F) {
	whole := make([]byte, 32+4+2+TokenLength)
	whole[5], whole[15] = 0x01, 0xf1
	binary.BigEndian.PutUint32(whole[32:], 2+TokenLength)
	f.Add(whole)
	f.Add(whole[:36])
	f.Fuzz(func(t *testing.T, p []byte) {
		info, delay, err := parseInformation(p)
		if err == nil && info == nil || delay < 0 {
			t.Errorf("%v, %v, %v", info, delay, err)
		}
		parseTokenLimits(p)
		parseSense(p)
	})
}
