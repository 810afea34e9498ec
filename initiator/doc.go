// Package initiator is an iSCSI initiator in user space (RFC 7143): enough of one to
// copy to and from the LUNs of any target, and to ask a target what an operating system
// would ask it.
//
// A Session is one connection with one target. Its reader hands every PDU to the
// command that waits for it; the goroutine of a command also sends its data, so that
// the reader never waits for the socket to take something. Do may be called
// concurrently; commands beyond the target's CmdSN window wait. A context that ends
// while a command runs ends the session with it: that leaves no buffer in doubt. If the
// target asks for a logout, running commands end, others are refused with
// ErrLogoutRequested, and the session logs out.
//
// A Disk is a logical unit of a session: blocks, and the offloaded copies of SPC-4
// (POPULATE TOKEN, WRITE USING TOKEN).
package initiator
