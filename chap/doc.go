// Package chap is CHAP, the Challenge Handshake Authentication Protocol, as iSCSI
// uses it (RFC 7143 12.1.3, 9.2.1; RFC 1994). An Authenticator holds who may come
// to a target and by which secret. An Exchange is the target's side of one
// authentication, a Claim the initiator's: keys and values go in and out of
// them, and how they travel is not their business.
//
//	initiator → CHAP_A  the algorithms that it knows, best first
//	target    → CHAP_A  the first of them that is allowed, CHAP_I, CHAP_C
//	initiator → CHAP_N, CHAP_R, and for mutual authentication CHAP_I, CHAP_C
//	target    → CHAP_N, CHAP_R if it was asked for them
//
// The target answers a challenge only to an initiator that has proved itself in
// the same request, and never a challenge that it has made itself (Challenges).
// An error tells the log what was wrong. The initiator hears of no reason, so
// that it cannot tell an unknown name from a wrong secret.
package chap
