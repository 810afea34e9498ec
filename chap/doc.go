// Package chap implements CHAP, the Challenge Handshake Authentication Protocol, as
// iSCSI uses it (RFC 7143 12.1.3, 9.2.1; RFC 1994). An Authenticator holds the users
// of a target and their secrets. An Exchange is the target's side of one
// authentication, a Claim the initiator's. Both consume and produce text keys; the
// caller transports them.
//
//	initiator → CHAP_A  the supported algorithms, in order of preference
//	target    → CHAP_A  the first of them that is allowed, CHAP_I, CHAP_C
//	initiator → CHAP_N, CHAP_R, and for mutual authentication CHAP_I, CHAP_C
//	target    → CHAP_N, CHAP_R for mutual authentication
//
// The target responds to a challenge only if the same request authenticates the
// initiator, and never to a challenge of its own (Challenges). Errors are for the
// log. The initiator receives no reason, so that it cannot distinguish an unknown
// name from a wrong secret.
package chap
