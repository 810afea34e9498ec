package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"odx/chap"
	"odx/target/scsi"
)

// Stages of a login (RFC 7143 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFullFeature = 3
)

// Login status classes and details (RFC 7143 11.13.5), as class<<8 | detail.
const (
	loginSuccess              = 0x0000
	loginMovedTemporarily     = 0x0101
	loginMovedPermanently     = 0x0102
	loginInitiatorError       = 0x0200
	loginAuthenticationFailed = 0x0201
	loginAuthorizationFailed  = 0x0202
	loginNotFound             = 0x0203
	loginUnsupportedVersion   = 0x0205
	loginTooManyConnections   = 0x0206
	loginMissingParameter     = 0x0207
	loginCannotInclude        = 0x0208
	loginBadSessionType       = 0x0209
	loginNoSuchSession        = 0x020a
	loginTargetError          = 0x0300
	loginServiceUnavailable   = 0x0301
	loginOutOfResources       = 0x0302
)

// Bounds of one login: its requests, and all their text in bytes.
const (
	maxLoginPDUs = 64
	maxLoginText = 32 << 10
)

// initialStatSN is the StatSN of a connection's first response.
const initialStatSN = 1

// loginError is a login that the initiator is told the end of.
type loginError struct {
	status uint16
	err    error
	text   []byte // keys that go with it
}

func (e *loginError) Error() string { return "login refused: " + e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

func refuse(status uint16, format string, args ...any) error {
	return &loginError{status: status, err: fmt.Errorf(format, args...)}
}

// login is a login while it lasts.
type login struct {
	c     *conn
	first bhs // the first request; later ones must agree with it
	stage int
	// negotiated is set once the first whole text of the login was answered.
	negotiated bool

	initiator, targetName string
	kind                  sessionType
	target                *target
	params                params
	security              security

	seen     map[string]string // keys that were sent, with what those that may be repeated said
	told     map[string]bool   // keys that we have sent, of those that are not only answers
	text     int               // bytes of text that were sent
	request  []byte            // text of a request that goes on (C bit)
	response []byte            // text that has not been sent
}

// login brings the connection to full feature phase. The initiator has been
// told about an error that is returned.
func (c *conn) login() error {
	if err := c.nc.SetDeadline(time.Now().Add(c.srv.opts.LoginTimeout)); err != nil {
		return err
	}
	l := &login{c: c, stage: -1, params: defaultParams(), seen: make(map[string]string), told: make(map[string]bool)}
	defer l.security.end()
	c.out.statSN = initialStatSN
	for range maxLoginPDUs {
		p := &c.pdu
		if err := c.in.next(p); err != nil {
			return err
		}
		over, err := l.handle(p)
		if err != nil {
			var refused *loginError
			if errors.As(err, &refused) {
				l.refuse(p, refused.status, refused.text)
			}
			return err
		}
		if over {
			return c.nc.SetDeadline(time.Time{})
		}
	}
	err := refuse(loginInitiatorError, "more than %d login requests", maxLoginPDUs)
	l.refuse(&c.pdu, loginInitiatorError, nil)
	return err
}

// handle takes one request and answers it. over says that full feature phase
// has begun.
func (l *login) handle(p *pdu) (over bool, err error) {
	if p.opcode() != opLogin {
		return false, malformed("opcode %#x before login", p.opcode())
	}
	text := make([]byte, p.dataSegmentLength())
	if err := p.readData(text); err != nil {
		return false, err
	}
	if err := l.check(p); err != nil {
		return false, err
	}
	goesOn := p.bhs[1]&bitContinue != 0
	if len(l.response) > 0 {
		// The initiator asks for the rest of our text.
		if len(text) > 0 || p.bhs[1]&bitTransit != 0 {
			return false, refuse(loginInitiatorError, "new text before the last answer was read")
		}
		return false, l.respond(p, l.stage, nil)
	}
	l.text += len(text)
	if l.request = append(l.request, text...); len(l.request) > maxTextLength || l.text > maxLoginText {
		return false, refuse(loginOutOfResources, "login text of more than %d bytes in a request, or %d in all", maxTextLength, maxLoginText)
	}
	if goesOn {
		return false, l.respond(p, l.stage, nil)
	}
	pairs, err := parseText(l.request)
	if err != nil {
		return false, refuse(loginInitiatorError, "%w", err)
	}
	l.request = l.request[:0]
	if err := l.negotiate(pairs); err != nil {
		return false, err
	}
	return l.answer(p)
}

// check compares the header of a request with the stage and with the requests
// before it.
func (l *login) check(p *pdu) error {
	flags := p.bhs[1]
	stage, next := int(flags>>2&3), int(flags&3)
	transit := flags&bitTransit != 0
	if l.stage < 0 {
		l.first, l.stage = p.bhs, stage
	}
	switch {
	case p.bhs[3] > 0: // Version-min; we speak version 0
		return refuse(loginUnsupportedVersion, "lowest version of the initiator is %d", p.bhs[3])
	case stage != l.stage || stage > stageOperational:
		return refuse(loginInitiatorError, "request of stage %d in stage %d", stage, l.stage)
	case transit && flags&bitContinue != 0:
		return refuse(loginInitiatorError, "request with both T and C")
	case transit && (next <= stage || next == 2):
		return refuse(loginInitiatorError, "transit from stage %d to %d", stage, next)
	case [8]byte(p.bhs[8:16]) != [8]byte(l.first[8:16]) || p.itt() != l.first.itt() || p.cid() != l.first.cid():
		return refuse(loginInitiatorError, "ISID, TSIH, task tag or CID changed during login")
	}
	return nil
}

// negotiate answers the keys of a whole request text.
func (l *login) negotiate(pairs []pair) error {
	for _, k := range pairs {
		if err := l.note(k); err != nil {
			return err
		}
	}
	if !l.negotiated {
		if err := l.identify(pairs); err != nil {
			return err
		}
		if err := l.requireSecurity(); err != nil {
			return err
		}
		l.negotiated = true
	}
	if err := l.authenticate(pairs); err != nil {
		return err
	}
	// FirstBurstLength comes last: MaxBurstLength bounds its result, wherever it
	// stands.
	first := func(k pair) bool { return k.key == "FirstBurstLength" }
	for _, k := range slices.Concat(slices.DeleteFunc(slices.Clone(pairs), first), keep(pairs, first)) {
		if err := l.negotiateKey(k); err != nil {
			return err
		}
	}
	return l.authorize()
}

// keep returns the pairs that match.
func keep(pairs []pair, match func(pair) bool) []pair {
	return slices.DeleteFunc(slices.Clone(pairs), func(k pair) bool { return !match(k) })
}

// note refuses keys that are sent twice (RFC 7143 6.2). Initiators do repeat
// who they are in the next stage, and libiscsi its alias; that is let pass if it
// says the same.
func (l *login) note(k pair) error {
	before, again := l.seen[k.key]
	repeatable := identityKey(k.key) || k.key == "InitiatorAlias"
	switch {
	case again && !(repeatable && before == k.value):
		return refuse(loginInitiatorError, "key %s sent twice", k.key)
	case !again && l.negotiated && identityKey(k.key):
		return refuse(loginInitiatorError, "%s after the first request", k.key)
	case len(l.seen) == maxTextKeys:
		return refuse(loginInitiatorError, "more than %d keys", maxTextKeys)
	}
	l.seen[k.key] = ""
	if repeatable {
		l.seen[k.key] = k.value
	}
	return nil
}

// refusal ends a login that has to go elsewhere.
func (r *Redirect) refusal(l *login) error {
	status := uint16(loginMovedTemporarily)
	if r.Permanent {
		status = loginMovedPermanently
	}
	return &loginError{
		status: status,
		err:    fmt.Errorf("%s is sent to %s for %s", l.initiator, r.Address, l.target.Name),
		text:   appendPair(nil, "TargetAddress", r.Address),
	}
}

// identityKey reports whether key says who logs in to what.
func identityKey(key string) bool {
	return key == "InitiatorName" || key == "TargetName" || key == "SessionType"
}

// identify finds out who logs in to what (RFC 7143 6.3.1: these keys come with
// the first request).
func (l *login) identify(pairs []pair) error {
	for _, k := range pairs {
		switch k.key {
		case "InitiatorName":
			l.initiator = normalName(k.value)
		case "TargetName":
			l.targetName = normalName(k.value)
		case "SessionType":
			switch k.value {
			case "Normal":
			case "Discovery":
				l.kind = sessionDiscovery
			default:
				return refuse(loginBadSessionType, "session type %.40q", k.value)
			}
		}
	}
	if !validName(l.initiator) {
		return refuse(loginMissingParameter, "initiator name %.40q", l.initiator)
	}
	if l.kind == sessionDiscovery {
		return nil
	}
	if l.targetName == "" {
		return refuse(loginMissingParameter, "no TargetName from %s", l.initiator)
	}
	if l.target = l.c.srv.target(l.targetName); l.target == nil || !l.target.inGroup(l.c.group) {
		return refuse(loginNotFound, "%s asks for target %.230q, unknown in portal group %d", l.initiator, l.targetName, l.c.group)
	}
	if r := l.target.Redirect; r != nil {
		return r.refusal(l)
	}
	// RFC 7143 13.9: in the first response.
	l.declare("TargetPortalGroupTag", strconv.Itoa(int(l.c.group)))
	if l.target.Alias != "" {
		l.declare("TargetAlias", l.target.Alias)
	}
	return nil
}

// declare sends a key that is ours to declare, unless it was sent: a key stands
// once in a negotiation, also where a wrong offer of it was answered by Reject.
func (l *login) declare(key, value string) {
	if !l.told[key] {
		l.told[key] = true
		l.response = appendPair(l.response, key, value)
	}
}

// normalName returns an iSCSI name as it is compared: RFC 7143 4.2.7.1 has
// names in lower case.
func normalName(s string) string { return strings.ToLower(s) }

// validName accepts iSCSI names of RFC 7143 4.2.7, and others that initiators have:
// at most 223 bytes of UTF-8, no blanks or control characters. An asterisk is left to
// the patterns of the configuration, which can name all that is accepted.
func validName(s string) bool {
	return s != "" && len(s) <= 223 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '*' || r == utf8.RuneError
	})
}

func (l *login) negotiateKey(k pair) error {
	if identityKey(k.key) || chap.IsKey(k.key) {
		return nil
	}
	if k.key == "AuthMethod" {
		return l.negotiateSecurity(k.value)
	}
	if _, known := operationalKeys[k.key]; known && l.stage == stageSecurity && k.key != "InitiatorAlias" {
		return refuse(loginInitiatorError, "key %s in the security stage", k.key)
	}
	if l.tsih() != 0 && operationalKeys[k.key].leadingOnly {
		l.response = appendPair(l.response, k.key, valueReject)
		return nil
	}
	if l.told[k.key] {
		return nil // what the target declares by itself is no answer, and said once
	}
	if answer, answered := l.params.negotiate(&l.c.srv.opts, k, l.kind); answered {
		l.response = appendPair(l.response, k.key, answer)
		l.told[k.key] = true
	}
	return nil
}

// answer sends our side of a request that was negotiated, and changes the stage
// if the initiator asks for that.
func (l *login) answer(p *pdu) (over bool, err error) {
	const length = "MaxRecvDataSegmentLength"
	if l.stage == stageOperational && !l.told[length] { // else it stays what it is by default
		l.params.maxRecv = uint32(l.c.srv.opts.MaxRecvDataSegmentLength)
		l.declare(length, strconv.Itoa(int(l.params.maxRecv)))
	}
	next := int(p.bhs[1] & 3)
	if p.bhs[1]&bitTransit == 0 || len(l.response) > defaultMaxRecv {
		return false, l.respond(p, l.stage, nil)
	}
	if stays, err := l.staysInSecurity(); err != nil {
		return false, err
	} else if stays {
		return false, l.respond(p, l.stage, nil)
	}
	if next != stageFullFeature {
		err := l.respond(p, next, nil)
		l.stage = next
		return false, err
	}
	return true, l.enter(p)
}

// enter brings the connection into full feature phase with the last response.
func (l *login) enter(p *pdu) error {
	c := l.c
	l.params.settle()
	c.cid = p.cid()
	if err := c.srv.admit(l); err != nil {
		return err
	}
	s := c.sess
	if l.tsih() != 0 {
		l.params = s.params.joined(&l.params)
		if l.rights().Proof != s.proof {
			s.nexus.DropProof() // it stands for two initiators now, or two addresses
		}
	} else if s.kind == sessionNormal {
		rights := l.rights()
		s.proof = rights.Proof
		s.nexus = s.target.DeviceServer.AttachWith(s.id, rights)
		s.nexus.SetTaskAborter(s)
	}
	c.params = l.params
	s.begun()
	if err := l.respond(p, stageFullFeature, s); err != nil {
		return err
	}
	c.in.headerDigest, c.in.dataDigest = l.params.headerDigest, l.params.dataDigest
	c.out.headerDigest, c.out.dataDigest = l.params.headerDigest, l.params.dataDigest
	c.in.maxData, c.in.maxAHS = int(l.params.maxRecv), maxAHSLength
	c.in.grow()
	c.out.window = s.window
	c.fullFeature.Store(true)
	s.log.WithField("from", c.nc.RemoteAddr()).WithFields(l.security.proof()).Info("initiator logged in")
	return nil
}

// respond answers with as much of the response text as fits. next is another
// stage than the current one for a transit; s is set in the last response.
func (l *login) respond(p *pdu, next int, s *session) error {
	n := min(len(l.response), defaultMaxRecv)
	r := l.header(p)
	r[1] = byte(l.stage << 2)
	switch {
	case next != l.stage:
		r[1] |= bitTransit | byte(next)
	case n < len(l.response):
		r[1] |= bitContinue
	}
	if s != nil {
		r.put16(14, s.tsih)
	}
	r.setDataSegmentLength(n)
	text := l.response[:n]
	l.response = l.response[n:]
	return l.c.write(r, text)
}

// refuse answers a request with the status that ends the login.
func (l *login) refuse(p *pdu, status uint16, text []byte) {
	r := l.header(p)
	r[1] = byte(max(l.stage, 0) << 2)
	r.put16(36, status)
	r.setDataSegmentLength(len(text))
	if err := l.c.write(r, text); err != nil && !hangUp(err) {
		l.c.log.WithError(err).Debug("refusing a login")
	}
}

// header begins a Login Response (RFC 7143 11.13).
func (l *login) header(p *pdu) *bhs {
	r := &bhs{0: opLoginResponse}
	copy(r[8:16], p.bhs[8:16]) // ISID and TSIH
	r.put32(16, p.itt())
	r.put32(24, l.c.out.statSN)
	l.c.out.statSN++
	exp := l.first.cmdSN()
	limit := exp + uint32(l.c.srv.opts.QueueDepth) - 1
	if s := l.c.sess; s != nil {
		exp, limit = s.window()
	}
	r.put32(28, exp)
	r.put32(32, limit)
	return r
}

// write sends one PDU and waits; it is for the login, when no writer runs.
func (c *conn) write(h *bhs, data []byte) error {
	bufs := net.Buffers{h[:], data, zeroPad[:padding(len(data))]}
	_, err := bufs.WriteTo(c.nc)
	return err
}

// isid returns the initiator session ID of the login.
func (l *login) isid() [6]byte { return [6]byte(l.first[8:14]) }

func (l *login) tsih() uint16 { return binary.BigEndian.Uint16(l.first[14:]) }

// nexusID returns the I_T nexus that the login asks for.
func (l *login) nexusID() scsi.NexusID {
	id := scsi.NexusID{InitiatorName: l.initiator, ISID: l.isid()}
	if l.target != nil {
		id.TargetName, id.TargetPortalGroupTag = l.target.Name, l.c.group
	}
	return id
}
