// Package iscsi is the transport of an iSCSI target (RFC 7143). It accepts connections,
// processes logins, receives commands and their Data-Out, passes each command to the
// DeviceServer of its target, and sends Data-In and status. It handles PDUs, sequence
// numbers and sessions; it does not interpret CDBs.
//
// # Structure
//
// A Server has targets. A session is an I_T nexus with one target, and has as many
// connections as negotiated, usually one (see connections.go). A connection has a
// reader and a writer:
//
//	reader → task → DeviceServer → sender → socket
//
// The reader receives many PDUs with one read. Commands that are expected to be short
// run on the reader, one after the other, and their responses are sent with one writev.
// So do longer commands of an initiator that waits for each response (see
// closedloop.go). Other commands run concurrently on the session's workers, which park
// for a while when idle (see workers.go). If a command on the reader is slow, the
// watchdog starts another reader within milliseconds (see watchdog.go).
//
// A goroutine that queues a response first tries to send it without blocking. The
// connection's writer sends the rest (see sender.go).
//
// What is configured is one immutable value (see configuration.go). Reconfigure replaces it:
// a login that loads it once sees one state, and compares it with the current one when it
// becomes a session. Then each session is admitted again (see readmit.go), and initiators that
// may not continue are asked to log out (see logoutrequest.go).
//
// A server can leave its sessions to another one, in another process: Suspend has its
// readers come to rest (see drain.go) and returns state and sockets, from which Resume
// goes on.
//
// # Bounds
//
// A peer that has not logged in uses one goroutine, at most loginBufferLength bytes of
// input and maxLoginText bytes of text, for at most LoginTimeout and maxLoginPDUs
// requests. pending.go bounds the number of such peers. A session has at most
// QueueDepth commands, plus QueueDepth aborted commands that have not returned from the
// store, and at most Workers goroutines in addition to those of the latter; idle ones
// are retired. The data of all sessions occupies at most BufferBytes: budget.go divides
// it between initiators, commands wait for it in memory.go, and stall.go reclaims it
// from stalled initiators.
//
// # Locks
//
// Order: Server.changing → session.admitting → session.order → Server.mu → session.mu →
// sender.mu, budget.mu. No lock is held while the DeviceServer runs or while the socket is
// read or written, but the first two, which no command takes: changing excludes
// reconfigurations, suspension and shutdown from each other, and admitting what creates the
// nexus of a session and changes its rights.
package iscsi
