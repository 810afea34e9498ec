package initiator

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"

	"odx/chap"
)

// Stages of a login (RFC 7143 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFullFeature = 3
)

const bitTransit = 0x80

// maxLoginRounds bounds the PDUs of one login.
const maxLoginRounds = 16

// LoginError is a login that the target refused (RFC 7143 11.13.5).
type LoginError struct {
	Class, Detail byte
}

func (e *LoginError) Error() string {
	what := map[[2]byte]string{
		{2, 1}: "authentication failed; is the user name or the password wrong or missing?",
		{2, 2}: "this initiator may not use the target",
		{2, 3}: "the target does not exist there",
		{2, 4}: "the target was removed",
		{2, 6}: "too many connections",
		{3, 1}: "the target is not able to serve now",
		{3, 2}: "the target is out of resources",
	}[[2]byte{e.Class, e.Detail}]
	if what == "" {
		what = "the target refused the login"
	}
	return fmt.Sprintf("%s (status %02x%02xh)", what, e.Class, e.Detail)
}

// login is the login phase of a connection.
type login struct {
	conn    net.Conn
	in      *bufio.Reader
	options *Options
	isid    [6]byte
	keys    map[string]string // what the target answered

	cmdSN, maxCmdSN, expStatSN uint32
}

// limits are what was negotiated, in bytes.
type limits struct {
	segment, burst, firstBurst int
	immediate, initialR2T      bool
}

// run logs in. moved is the address where the target is to be found instead.
func (l *login) run() (moved string, err error) {
	u := &l.options.URL
	keys := []string{"InitiatorName=" + l.options.InitiatorName, "TargetName=" + u.Target, "SessionType=Normal"}
	if u.Login.User == "" {
		keys = append(keys, "AuthMethod=None")
		if moved, err = l.stage(stageSecurity, stageOperational, keys); err != nil || moved != "" {
			return moved, err
		}
	} else if moved, err = l.authenticate(keys); err != nil || moved != "" {
		return moved, err
	}
	return l.stage(stageOperational, stageFullFeature, []string{
		"HeaderDigest=None", "DataDigest=None", "ErrorRecoveryLevel=0", "MaxConnections=1",
		"InitialR2T=No", "ImmediateData=Yes", "MaxOutstandingR2T=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes",
		"MaxBurstLength=1048576", "FirstBurstLength=262144", "DefaultTime2Wait=2", "DefaultTime2Retain=0",
		"MaxRecvDataSegmentLength=" + strconv.Itoa(maxDataLength),
	})
}

// authenticate proves who we are by CHAP, and demands the same of the target
// where the URL says how.
func (l *login) authenticate(keys []string) (moved string, err error) {
	u := &l.options.URL
	claim := chap.Claim{
		Initiator: chap.Credential{Name: u.Login.User, Secret: []byte(u.Login.Password)},
		Target:    chap.Credential{Name: u.TargetLogin.User, Secret: []byte(u.TargetLogin.Password)},
	}
	h, err := l.exchange(stageSecurity, stageOperational, false, append(keys, "AuthMethod=CHAP,None"))
	if err != nil {
		return "", err
	}
	if h[36] == 1 {
		return l.redirect()
	}
	if method := l.keys["AuthMethod"]; method == "None" && claim.Target.Name == "" {
		return l.stage(stageSecurity, stageOperational, nil)
	} else if method != "CHAP" {
		return "", fmt.Errorf("the target does not authenticate by CHAP, it answers %q", method)
	}
	if _, err := l.exchange(stageSecurity, stageOperational, false, texts(claim.Offer())); err != nil {
		return "", err
	}
	response, err := claim.Respond(l.keys)
	if err != nil {
		return "", err
	}
	// What the target sends now must be its own proof, not what it sent before.
	delete(l.keys, "CHAP_R")
	if moved, err = l.stage(stageSecurity, stageOperational, texts(response...)); err != nil || moved != "" {
		return moved, err
	}
	return "", claim.Check(l.keys)
}

// texts are pairs as they stand in login text.
func texts(pairs ...chap.Pair) []string {
	var keys []string
	for _, p := range pairs {
		keys = append(keys, p.Key+"="+p.Value)
	}
	return keys
}

// stage sends keys and goes on until the target moves to the next stage.
func (l *login) stage(current, next byte, keys []string) (moved string, err error) {
	for range maxLoginRounds {
		h, err := l.exchange(current, next, true, keys)
		if err != nil {
			return "", err
		}
		if h[36] == 1 {
			return l.redirect()
		}
		if h[1]&bitTransit != 0 {
			return "", nil
		}
		keys = nil
	}
	return "", fmt.Errorf("the login does not end")
}

// redirect returns the address of TargetAddress, without the portal group.
func (l *login) redirect() (string, error) {
	where, _, _ := strings.Cut(l.keys["TargetAddress"], ",")
	if where == "" {
		return "", fmt.Errorf("the target has moved and does not say where")
	}
	return address(where)
}

// exchange sends one login request and takes the answer, which may come in
// parts.
func (l *login) exchange(current, next byte, transit bool, keys []string) (*header, error) {
	h := &header{0: opLogin | bitImmediate, 1: current << 2}
	if transit {
		h[1] |= bitTransit | next
	}
	copy(h[8:14], l.isid[:])
	h.put32(24, l.cmdSN)
	h.put32(28, l.expStatSN)
	var text []byte
	for _, k := range keys {
		text = append(append(text, k...), 0)
	}
	if err := send(l.conn, h, text); err != nil {
		return nil, err
	}
	answer, err := l.answer()
	for rounds := 0; err == nil && answer[1]&0x40 != 0; rounds++ { // it goes on
		if rounds == maxLoginRounds {
			return nil, fmt.Errorf("the target's login text does not end")
		}
		more := &header{0: opLogin | bitImmediate, 1: current << 2}
		copy(more[8:14], l.isid[:])
		more.put32(24, l.cmdSN)
		more.put32(28, l.expStatSN)
		if err := send(l.conn, more, nil); err != nil {
			return nil, err
		}
		answer, err = l.answer()
	}
	return answer, err
}

// answer takes a login response and its keys.
func (l *login) answer() (*header, error) {
	h, err := receiveHeader(l.in)
	if err != nil {
		return nil, err
	}
	if h.opcode() != opLoginResponse || h.dataLength() > 8192 {
		return nil, fmt.Errorf("not a login response (opcode %#02x, %d bytes); is this an iSCSI portal?", h.opcode(), h.dataLength())
	}
	text := make([]byte, h.dataLength())
	if err := receiveData(l.in, h, text); err != nil {
		return nil, err
	}
	for line := range bytes.SplitSeq(text, []byte{0}) {
		if key, value, ok := strings.Cut(string(line), "="); ok {
			l.keys[key] = value
		}
	}
	if class := h[36]; class > 1 {
		return nil, &LoginError{Class: class, Detail: h[37]}
	}
	l.expStatSN, l.cmdSN, l.maxCmdSN = h.get32(24)+1, h.get32(28), h.get32(32)
	return h, nil
}

// limits reads what the target chose; a key that it did not answer has the
// default of RFC 7143 13.
func (l *login) limits() (limits, error) {
	n := limits{
		immediate:  l.keys["ImmediateData"] != "No",
		initialR2T: l.keys["InitialR2T"] != "No",
	}
	for _, k := range []struct {
		key   string
		value int
		into  *int
	}{
		{"MaxRecvDataSegmentLength", 8192, &n.segment},
		{"MaxBurstLength", 262144, &n.burst},
		{"FirstBurstLength", 65536, &n.firstBurst},
	} {
		*k.into = k.value
		text, ok := l.keys[k.key]
		if !ok {
			continue
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < 512 || v > 1<<24-1 {
			return n, fmt.Errorf("the target answers %s=%s", k.key, text)
		}
		*k.into = v
	}
	return n, nil
}
