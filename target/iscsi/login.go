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

// Bounds of a login: the number of requests, and the total length of their text in bytes.
const (
	maxLoginPDUs = 64
	maxLoginText = 32 << 10
)

// initialStatSN is the StatSN of a connection's first response.
const initialStatSN = 1

// loginError is an error that the initiator receives in a Login Response.
type loginError struct {
	status uint16
	err    error
	text   []byte // keys of the response
}

func (e *loginError) Error() string { return "login refused: " + e.err.Error() }
func (e *loginError) Unwrap() error { return e.err }

func refuse(status uint16, format string, args ...any) error {
	return &loginError{status: status, err: fmt.Errorf(format, args...)}
}

// login is the state of a login.
type login struct {
	c *conn
	// conf is the configuration that decides the login: that of its first request, until
	// catchUp.
	conf  *configuration
	first bhs // header of the first request, which later ones must match
	stage int
	// negotiated is set once the first complete text was answered.
	negotiated bool

	initiator, targetName string
	kind                  sessionType
	target                *target
	params                params
	security              security

	seen     map[string]string // received keys, with the values of those that may be repeated
	declared map[string]bool   // keys that the target has declared
	text     int               // length of the received text in bytes
	request  []byte            // text of an incomplete request (C bit)
	response []byte            // text to be sent
}

// login brings the connection to full feature phase. If it returns an error, the
// initiator has received it.
func (c *conn) login() error {
	l := &login{c: c, conf: c.srv.conf.Load(), stage: -1, params: defaultParams(), seen: make(map[string]string), declared: make(map[string]bool)}
	defer l.security.end()
	if err := c.nc.SetDeadline(time.Now().Add(l.conf.options.LoginTimeout)); err != nil {
		return err
	}
	c.out.statSN = initialStatSN
	for range maxLoginPDUs {
		p := &c.pdu
		if err := c.in.next(p); err != nil {
			return err
		}
		over, err := l.handle(p)
		if err != nil {
			err = l.unlessChanged(err)
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

// handle handles a request. over reports that the connection is in full feature phase.
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
	incomplete := p.bhs[1]&bitContinue != 0
	if len(l.response) > 0 {
		// An empty request for the rest of the response text.
		if len(text) > 0 || p.bhs[1]&bitTransit != 0 {
			return false, refuse(loginInitiatorError, "new text before the end of the previous response")
		}
		return false, l.respond(p, l.stage, nil)
	}
	l.text += len(text)
	if l.request = append(l.request, text...); len(l.request) > maxTextLength || l.text > maxLoginText {
		return false, refuse(loginOutOfResources, "login text exceeds %d bytes in a request, or %d in total", maxTextLength, maxLoginText)
	}
	if incomplete {
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

// check compares the header of a request with the stage and with earlier requests.
func (l *login) check(p *pdu) error {
	flags := p.bhs[1]
	stage, next := int(flags>>2&3), int(flags&3)
	transit := flags&bitTransit != 0
	if l.stage < 0 {
		l.first, l.stage, l.conf = p.bhs, stage, l.c.srv.conf.Load()
	}
	switch {
	case p.bhs[3] > 0: // Version-min; only version 0 is supported
		return refuse(loginUnsupportedVersion, "unsupported version: minimum of the initiator is %d", p.bhs[3])
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

// negotiate processes the keys of a complete request text.
func (l *login) negotiate(pairs []pair) error {
	for _, k := range pairs {
		if err := l.checkKey(k); err != nil {
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
	// FirstBurstLength is processed last, because MaxBurstLength bounds its result.
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

// checkKey refuses keys that are sent twice (RFC 7143 6.2). Some initiators repeat the
// identity keys in the next stage, and libiscsi its alias; both are accepted if the value
// is the same.
func (l *login) checkKey(k pair) error {
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

// refusal returns the error of a login that is redirected.
func (r *Redirect) refusal(l *login) error {
	status := uint16(loginMovedTemporarily)
	if r.Permanent {
		status = loginMovedPermanently
	}
	return &loginError{
		status: status,
		err:    fmt.Errorf("%s redirected to %s for %s", l.initiator, r.Address, l.target.Name),
		text:   appendPair(nil, "TargetAddress", r.Address),
	}
}

// identityKey reports whether key identifies the initiator, the target or the session
// type.
func identityKey(key string) bool {
	return key == "InitiatorName" || key == "TargetName" || key == "SessionType"
}

// identify processes the identity keys, which must be in the first request (RFC 7143
// 6.3.1).
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
		return refuse(loginMissingParameter, "invalid initiator name %.40q", l.initiator)
	}
	if l.kind == sessionDiscovery {
		return nil
	}
	if l.targetName == "" {
		return refuse(loginMissingParameter, "missing TargetName from %s", l.initiator)
	}
	if err := l.find(); err != nil {
		return err
	}
	// RFC 7143 13.9: in the first response.
	l.declare("TargetPortalGroupTag", strconv.Itoa(int(l.c.group)))
	if l.target.Alias != "" {
		l.declare("TargetAlias", l.target.Alias)
	}
	return nil
}

// find sets the target of the login, or returns why it cannot be used here.
func (l *login) find() error {
	if l.target = l.conf.target(l.targetName); l.target == nil || !l.target.inGroup(l.c.group) {
		return refuse(loginNotFound, "%s: unknown target %.230q in portal group %d", l.initiator, l.targetName, l.c.group)
	}
	if r := l.target.Redirect; r != nil {
		return r.refusal(l)
	}
	if d := l.target.Director; d != nil {
		address, ok := d.Login()
		if !ok {
			return refuse(loginServiceUnavailable, "%s: no server has %s at the moment", l.initiator, l.target.Name)
		}
		return (&Redirect{Address: address}).refusal(l)
	}
	return nil
}

// declare sends a key that the target declares, once: a negotiation has each key once,
// even if an invalid offer of it was answered by Reject.
func (l *login) declare(key, value string) {
	if !l.declared[key] {
		l.declared[key] = true
		l.response = appendPair(l.response, key, value)
	}
}

// normalName returns the normal form of an iSCSI name, which is lower case (RFC 7143
// 4.2.7.1).
func normalName(s string) string { return strings.ToLower(s) }

// validName accepts iSCSI names of RFC 7143 4.2.7, and others that initiators use: at
// most 223 bytes of UTF-8, without white space and control characters. An asterisk is
// invalid because the configuration uses it in patterns.
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
	if l.declared[k.key] {
		return nil // the target has already declared it
	}
	if answer, answered := l.params.negotiate(&l.conf.options, k, l.kind); answered {
		l.response = appendPair(l.response, k.key, answer)
		l.declared[k.key] = true
	}
	return nil
}

// answer responds to a negotiated request, and changes the stage if the initiator
// requests that.
func (l *login) answer(p *pdu) (over bool, err error) {
	const length = "MaxRecvDataSegmentLength"
	if l.stage == stageOperational && !l.declared[length] { // otherwise the default applies
		l.params.maxRecv = uint32(l.conf.options.MaxRecvDataSegmentLength)
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
	return true, l.enterFullFeature(p)
}

// enterFullFeature enters full feature phase with the last response.
func (l *login) enterFullFeature(p *pdu) error {
	c := l.c
	l.params.clampFirstBurst()
	c.cid = p.cid()
	if err := c.srv.admit(l); err != nil {
		return err
	}
	s := c.sess
	switch {
	case l.tsih() != 0:
		l.params = s.params.joined(&l.params)
		s.addProof(l.rights().Proof)
	case s.kind == sessionNormal:
		s.attach(func(r scsi.Rights) *scsi.Nexus { return s.device.AttachWith(s.id, r) })
	}
	s.open(c, l.params)
	if err := l.respond(p, stageFullFeature, s); err != nil {
		return err
	}
	c.beginFullFeature()
	if c.leaving.Load() {
		c.requestLogout() // the request could not precede the response
	}
	s.log.WithField("from", c.nc.RemoteAddr()).WithFields(l.security.proof()).Info("initiator logged in")
	return nil
}

// beginFullFeature prepares reader and sender for the full feature phase with the
// parameters of the connection.
func (c *conn) beginFullFeature() {
	p := &c.params
	c.in.headerDigest, c.in.dataDigest = p.headerDigest, p.dataDigest
	c.out.headerDigest, c.out.dataDigest = p.headerDigest, p.dataDigest
	c.in.maxData, c.in.maxAHS = int(p.maxRecv), maxAHSLength
	c.in.grow()
	c.out.window = c.sess.window
	c.fullFeature.Store(true)
}

// respond sends as much of the response text as fits. If next differs from the current
// stage, the response is a transit. s is set for the last response.
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

// refuse sends the response with the status that ends the login.
func (l *login) refuse(p *pdu, status uint16, text []byte) {
	r := l.header(p)
	r[1] = byte(max(l.stage, 0) << 2)
	r.put16(36, status)
	r.setDataSegmentLength(len(text))
	if err := l.c.write(r, text); err != nil && !isDisconnect(err) {
		l.c.log.WithError(err).Debug("send login refusal")
	}
}

// header returns the header of a Login Response (RFC 7143 11.13).
func (l *login) header(p *pdu) *bhs {
	r := &bhs{0: opLoginResponse}
	copy(r[8:16], p.bhs[8:16]) // ISID and TSIH
	r.put32(16, p.itt())
	r.put32(24, l.c.out.statSN)
	l.c.out.statSN++
	exp := l.first.cmdSN()
	limit := exp + uint32(l.conf.options.QueueDepth) - 1
	if s := l.c.sess; s != nil {
		exp, limit = s.window()
	}
	r.put32(28, exp)
	r.put32(32, limit)
	return r
}

// write writes a PDU and blocks. It is used during login, when no writer runs.
func (c *conn) write(h *bhs, data []byte) error {
	if err := c.srv.owned(); err != nil {
		return err
	}
	bufs := net.Buffers{h[:], data, zeroPad[:padding(len(data))]}
	_, err := bufs.WriteTo(c.nc)
	return err
}

// isid returns the initiator session ID of the login.
func (l *login) isid() [6]byte { return [6]byte(l.first[8:14]) }

func (l *login) tsih() uint16 { return binary.BigEndian.Uint16(l.first[14:]) }

// nexusID returns the I_T nexus of the login.
func (l *login) nexusID() scsi.NexusID {
	id := scsi.NexusID{InitiatorName: l.initiator, ISID: l.isid()}
	if l.target != nil {
		id.TargetName, id.TargetPortalGroupTag = l.target.Name, l.c.group
	}
	return id
}
