package iscsi

import (
	"slices"
	"strconv"
	"strings"
)

// params is the result of the operational negotiation of a session and its leading
// connection (RFC 7143 13). Lengths are in bytes.
type params struct {
	headerDigest, dataDigest  bool // CRC32C in both directions
	maxConnections            uint32
	initialR2T, immediateData bool
	// peerMaxRecv is the MaxRecvDataSegmentLength that the initiator declared, maxRecv the
	// one that the target declared.
	peerMaxRecv, maxRecv uint32
	maxBurst, firstBurst uint32
	// firstBurstAgreed is set if firstBurst was negotiated, so that the initiator relies
	// on it.
	firstBurstAgreed       bool
	maxOutstandingR2T      uint32
	time2Wait, time2Retain uint32
	errorRecoveryLevel     uint32
	protocolLevel          uint32
	initiatorAlias         string
}

// defaultMaxRecv is the default of MaxRecvDataSegmentLength, which applies during login
// (RFC 7143 13.12).
const defaultMaxRecv = 8192

// defaultParams returns the defaults of the keys (RFC 7143 13).
func defaultParams() params {
	return params{
		maxConnections:    1,
		initialR2T:        true,
		immediateData:     true,
		peerMaxRecv:       defaultMaxRecv,
		maxRecv:           defaultMaxRecv,
		maxBurst:          262144,
		firstBurst:        65536,
		maxOutstandingR2T: 1,
		time2Wait:         2,
		time2Retain:       20,
		protocolLevel:     1,
	}
}

// joined returns the session's parameters for a connection that has joined it. Keys that
// are not leading-only are those of the connection (RFC 7143 13).
func (p params) joined(own *params) params {
	p.headerDigest, p.dataDigest = own.headerDigest, own.dataDigest
	p.peerMaxRecv, p.maxRecv = own.peerMaxRecv, own.maxRecv
	return p
}

// clampFirstBurst limits the first burst to the length of a burst (RFC 7143 13.14). If
// the first burst was negotiated before a shorter burst, the initiator may still use it.
func (p *params) clampFirstBurst() {
	if !p.firstBurstAgreed {
		p.firstBurst = min(p.firstBurst, p.maxBurst)
	}
}

// keyKind is how the result of a key follows from the values of both sides (RFC 7143
// 6.2).
type keyKind int

const (
	kindList     keyKind = iota // the first supported value of the offer
	kindMin                     // number: the minimum
	kindMax                     // number: the maximum
	kindAnd                     // boolean: Yes if both values are Yes
	kindOr                      // boolean: Yes if one value is Yes
	kindNumber                  // number declared by the initiator, without answer
	kindString                  // text declared by the initiator, without answer
	kindConstant                // obsolete key with a constant answer
)

// keyRule is the negotiation rule of a key.
type keyRule struct {
	kind keyKind
	// ours is the value of the target: a list, a number, Yes or No, or the constant.
	ours func(o *Options) string
	// low and high bound kindMin, kindMax and kindNumber.
	low, high uint64
	// within bounds the result of kindMin by another key.
	within func(p *params) uint64
	// set stores the result: a number, 1 for Yes, or the index in the list.
	set func(p *params, result uint64)
	// text stores a declared text.
	text func(p *params, value string)
	// leadingOnly marks keys that only the leading connection negotiates.
	leadingOnly bool
	// irrelevantInDiscovery marks keys without meaning in a discovery session.
	irrelevantInDiscovery bool
}

func fixed(s string) func(*Options) string { return func(*Options) string { return s } }

func number(f func(*Options) int) func(*Options) string {
	return func(o *Options) string { return strconv.Itoa(f(o)) }
}

// operationalKeys are the keys of the LoginOperationalNegotiation stage (RFC 7143 13).
// The answer to a key in no table is NotUnderstood.
var operationalKeys = map[string]keyRule{
	"HeaderDigest": {kind: kindList, ours: fixed("None,CRC32C"),
		set: func(p *params, v uint64) { p.headerDigest = v == 1 }},
	"DataDigest": {kind: kindList, ours: fixed("None,CRC32C"),
		set: func(p *params, v uint64) { p.dataDigest = v == 1 }},
	"MaxConnections": {leadingOnly: true, kind: kindMin, low: 1, high: 65535,
		ours: number(func(o *Options) int { return o.ConnectionsPerSession }),
		set:  func(p *params, v uint64) { p.maxConnections = uint32(v) }, irrelevantInDiscovery: true},
	"InitialR2T": {leadingOnly: true, kind: kindOr, ours: fixed(valueNo),
		set: func(p *params, v uint64) { p.initialR2T = v == 1 }, irrelevantInDiscovery: true},
	"ImmediateData": {leadingOnly: true, kind: kindAnd, ours: fixed(valueYes),
		set: func(p *params, v uint64) { p.immediateData = v == 1 }, irrelevantInDiscovery: true},
	"MaxRecvDataSegmentLength": {kind: kindNumber, low: 512, high: 1<<24 - 1,
		set: func(p *params, v uint64) { p.peerMaxRecv = uint32(v) }},
	"MaxBurstLength": {leadingOnly: true, kind: kindMin, low: 512, high: 1<<24 - 1,
		ours: number(func(o *Options) int { return o.MaxBurstLength }),
		set:  func(p *params, v uint64) { p.maxBurst = uint32(v) }, irrelevantInDiscovery: true},
	"FirstBurstLength": {leadingOnly: true, kind: kindMin, low: 512, high: 1<<24 - 1,
		ours:   number(func(o *Options) int { return o.FirstBurstLength }),
		within: func(p *params) uint64 { return uint64(p.maxBurst) },
		set:    func(p *params, v uint64) { p.firstBurst, p.firstBurstAgreed = uint32(v), true }, irrelevantInDiscovery: true},
	"MaxOutstandingR2T": {leadingOnly: true, kind: kindMin, low: 1, high: 65535, ours: fixed(strconv.Itoa(maxR2T)),
		set: func(p *params, v uint64) { p.maxOutstandingR2T = uint32(v) }, irrelevantInDiscovery: true},
	"DefaultTime2Wait": {leadingOnly: true, kind: kindMax, high: 3600, ours: fixed("0"),
		set: func(p *params, v uint64) { p.time2Wait = uint32(v) }},
	"DefaultTime2Retain": {leadingOnly: true, kind: kindMin, high: 3600, ours: fixed("0"),
		set: func(p *params, v uint64) { p.time2Retain = uint32(v) }},
	"DataPDUInOrder":      {leadingOnly: true, kind: kindOr, ours: fixed(valueYes), irrelevantInDiscovery: true},
	"DataSequenceInOrder": {leadingOnly: true, kind: kindOr, ours: fixed(valueYes), irrelevantInDiscovery: true},
	"ErrorRecoveryLevel": {leadingOnly: true, kind: kindMin, high: 2, ours: fixed("0"),
		set: func(p *params, v uint64) { p.errorRecoveryLevel = uint32(v) }},
	"TaskReporting": {leadingOnly: true, kind: kindList, ours: fixed("RFC3720"), irrelevantInDiscovery: true},
	"iSCSIProtocolLevel": {leadingOnly: true, kind: kindMin, high: 31, ours: fixed("1"),
		set: func(p *params, v uint64) { p.protocolLevel = uint32(v) }},
	"InitiatorAlias": {kind: kindString,
		text: func(p *params, v string) { p.initiatorAlias = v }},
	// RFC 7143 13.25: obsolete, but never NotUnderstood.
	"IFMarker":    {kind: kindConstant, ours: fixed(valueNo)},
	"OFMarker":    {kind: kindConstant, ours: fixed(valueNo)},
	"IFMarkInt":   {kind: kindConstant, ours: fixed(valueReject)},
	"OFMarkInt":   {kind: kindConstant, ours: fixed(valueReject)},
	"SendTargets": {kind: kindConstant, ours: fixed(valueReject)}, // full feature phase only
}

// negotiate applies a key of the initiator to p and returns the answer. answered is false
// for keys without answer.
func (p *params) negotiate(o *Options, k pair, t sessionType) (answer string, answered bool) {
	rule, known := operationalKeys[k.key]
	if !known {
		return valueNotUnderstood, true
	}
	if t == sessionDiscovery && rule.irrelevantInDiscovery {
		return valueIrrelevant, true
	}
	if rule.kind != kindList && rule.kind != kindString && len(k.value) > maxValueLength {
		return valueReject, true
	}
	switch rule.kind {
	case kindConstant:
		return rule.ours(o), true
	case kindString:
		rule.text(p, k.value)
		return "", false
	case kindList:
		return rule.chooseFromList(p, rule.ours(o), k.value), true
	case kindAnd, kindOr:
		return rule.decideBoolean(p, rule.ours(o), k.value), true
	default:
		return rule.decideNumber(o, p, k.value)
	}
}

// chooseFromList answers the first supported value of the offer.
func (r *keyRule) chooseFromList(p *params, ours, offer string) string {
	supported := strings.Split(ours, ",")
	for value := range strings.SplitSeq(offer, ",") {
		i := slices.Index(supported, value)
		if i < 0 {
			continue
		}
		if r.set != nil {
			r.set(p, uint64(i))
		}
		return value
	}
	return valueReject
}

func (r *keyRule) decideBoolean(p *params, ours, offer string) string {
	if offer != valueYes && offer != valueNo {
		return valueReject
	}
	result := valueNo
	if r.kind == kindAnd && offer == valueYes && ours == valueYes ||
		r.kind == kindOr && (offer == valueYes || ours == valueYes) {
		result = valueYes
	}
	if r.set != nil {
		v := uint64(0)
		if result == valueYes {
			v = 1
		}
		r.set(p, v)
	}
	return result
}

func (r *keyRule) decideNumber(o *Options, p *params, offer string) (string, bool) {
	v, ok := parseNumber(offer)
	if !ok || v < r.low || v > r.high {
		return valueReject, true
	}
	if r.kind == kindNumber {
		r.set(p, v)
		return "", false
	}
	ours, _ := parseNumber(r.ours(o))
	if r.kind == kindMin {
		if v = min(v, ours); r.within != nil {
			v = min(v, r.within(p))
		}
	} else {
		v = max(v, ours)
	}
	r.set(p, v)
	return strconv.FormatUint(v, 10), true
}
