package iscsi

import (
	"slices"
	"strings"

	"odx/target/bufpool"
)

// textExchange is a text negotiation in full feature phase: a request and its response,
// each in one or more PDUs (RFC 7143 11.10).
type textExchange struct {
	ttt      uint32 // reservedTag if none is in progress
	request  []byte
	response []byte // unsent
	charge   charge // of the budget, for response
}

// endText ends the negotiation, if one is in progress.
func (c *conn) endText() {
	c.dropResponse()
	c.text = textExchange{ttt: reservedTag}
}

// setResponse sets the response to a complete request, or returns false if there is no
// memory for it.
func (c *conn) setResponse(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	got, ok := c.srv.budget.take(c.sess.share, int64(cap(b)))
	if ok {
		c.text.response, c.text.charge = b, got
	}
	return ok
}

// dropResponse releases the response and its charge. The negotiation may continue: an
// initiator that has sent F=0 has more to negotiate after the response.
func (c *conn) dropResponse() {
	if c.text.charge.n > 0 {
		c.srv.budget.release(c.sess.share, c.text.charge)
	}
	c.text.response, c.text.charge = nil, charge{}
}

// refuseText rejects a Text Request and ends the negotiation.
func (c *conn) refuseText(p *pdu, reason byte) {
	c.endText()
	c.reject(p, reason)
}

// handleText handles a Text Request.
func (c *conn) handleText(p *pdu) error {
	x := &c.text
	more := p.bhs[1]&bitContinue != 0
	switch {
	case more && p.final():
		return malformed("text request with both F and C")
	case p.ttt() == reservedTag:
		c.endText()
	case p.ttt() != x.ttt:
		c.sess.releasePlace(p)
		c.reject(p, rejectInvalidPDUField)
		return p.discard()
	}
	if p.dataSegmentLength()+len(x.request) > maxTextLength {
		c.sess.releasePlace(p)
		c.refuseText(p, rejectOutOfResources)
		return p.discard()
	}
	n := len(x.request)
	x.request = slices.Grow(x.request, p.dataSegmentLength())[:n+p.dataSegmentLength()]
	if err := p.readData(x.request[n:]); err != nil {
		c.endText()
		c.sess.releasePlace(p)
		return c.droppedData(p, err)
	}
	if !more && len(x.response) == 0 {
		pairs, err := parseText(x.request)
		if err != nil {
			return protocolError("%w", err)
		}
		if key, twice := repeatedKey(pairs); twice {
			return protocolError("key %s sent twice", key)
		}
		x.request = nil
		if !c.setResponse(c.answerText(pairs)) {
			c.sess.releasePlace(p)
			c.refuseText(p, rejectOutOfResources)
			return nil
		}
	}
	c.sess.releasePlace(p)
	c.sendText(p, more)
	return nil
}

// sendText sends the next part of the response, or an empty response that requests the
// rest of the request.
func (c *conn) sendText(p *pdu, incomplete bool) {
	x := &c.text
	var n int
	if !incomplete {
		n = min(len(x.response), int(c.params.peerMaxRecv))
	}
	r := c.out.get(opTextResponse, p.itt())
	if n > 0 && !c.chargeOut(r, n) {
		c.out.put(r)
		c.refuseText(p, rejectOutOfResources)
		return
	}
	lun := p.lun()
	copy(r.bhs[8:], lun[:])
	copy(r.data, x.response[:n])
	if x.response = x.response[n:]; len(x.response) == 0 {
		c.dropResponse()
	}
	switch {
	case incomplete || len(x.response) == 0 && !p.final():
		r.bhs[1] = 0
	case len(x.response) > 0:
		r.bhs[1] = bitContinue
	}
	if r.bhs[1] == bitFinal {
		c.endText()
	} else if x.ttt == reservedTag {
		c.sess.mu.Lock()
		x.ttt = c.nextTTT()
		c.sess.mu.Unlock()
	}
	r.put32(20, x.ttt)
	c.out.queue(r, statSNAdvance)
}

// chargeOut gives r a buffer of n bytes for its data, or returns false if there is no
// memory for it.
func (c *conn) chargeOut(r *outPDU, n int) (ok bool) {
	r.share = c.sess.share
	if r.charge, ok = c.srv.budget.take(r.share, int64(bufpool.Size(n))); ok {
		r.buf = c.srv.pool.Get(n)
		r.data = r.buf.Bytes
	}
	return ok
}

// repeatedKey returns a key that a text has twice (RFC 7143 6.2). Refusing it also bounds
// the response: SendTargets=All has the largest.
func repeatedKey(pairs []pair) (key string, twice bool) {
	seen := make(map[string]bool, len(pairs))
	for _, k := range pairs {
		if seen[k.key] {
			return k.key, true
		}
		seen[k.key] = true
	}
	return "", false
}

// answerText answers the keys that are allowed in full feature phase.
func (c *conn) answerText(pairs []pair) []byte {
	var b []byte
	for _, k := range pairs {
		rule, known := operationalKeys[k.key]
		switch {
		case k.key == "SendTargets":
			b = c.sendTargets(b, k.value)
		case k.key == "MaxRecvDataSegmentLength":
			c.sess.mu.Lock()
			answer, answered := rule.decideNumber(c.srv.options(), &c.params, k.value)
			c.sess.mu.Unlock()
			if answered {
				b = appendPair(b, k.key, answer)
			}
		case k.key == "InitiatorAlias":
		case known:
			b = appendPair(b, k.key, valueReject)
		default:
			b = appendPair(b, k.key, valueNotUnderstood)
		}
	}
	return b
}

// addressesOf returns the values of TargetAddress of a target.
func (c *conn) addressesOf(t *target, conf *configuration) []string {
	if t.Director != nil {
		return t.Director.Discovered()
	}
	return portalAddresses(conf.portalsOf(t), c.at, c.nc.LocalAddr())
}

// sendTargets answers SendTargets (RFC 7143 Appendix C): all targets or one in a
// discovery session, the session's own in a normal one. It omits targets that the
// initiator may not use.
func (c *conn) sendTargets(b []byte, value string) []byte {
	s, conf := c.sess, c.srv.conf.Load()
	var found []*target
	switch {
	case s.kind == sessionDiscovery && strings.EqualFold(value, "All"): // no target has that name
		found = conf.targets
	case s.kind == sessionDiscovery && value != "":
		if t := conf.target(normalName(value)); t != nil {
			found = []*target{t}
		}
	case s.kind == sessionNormal && (value == "" || normalName(value) == s.id.TargetName):
		if t := conf.target(s.id.TargetName); t != nil {
			found = []*target{t}
		}
	default:
		return appendPair(b, "SendTargets", valueReject)
	}
	for _, t := range found {
		if _, ok := t.admits(s.id.InitiatorName, c); !ok {
			continue
		}
		b = appendPair(b, "TargetName", t.Name)
		for _, address := range c.addressesOf(t, conf) {
			b = appendPair(b, "TargetAddress", address)
		}
	}
	return b
}
