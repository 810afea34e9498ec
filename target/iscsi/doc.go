// Package iscsi is the transport of an iSCSI target (RFC 7143): it accepts
// connections, logs initiators in, takes their commands, fetches the data that
// goes out with them, hands each command to the DeviceServer of its target and
// sends back data and status. It knows PDUs, sequence numbers and sessions; it
// does not look into a CDB.
//
// # Shape
//
// A Server has targets; a session is one I_T nexus with one target and has as
// many connections as its initiator agreed on: nearly always one (for more see
// connections.go). A connection has one reader and one writer:
//
//	reader → task → DeviceServer → sender → socket
//
// The reader takes many PDUs with one read. Commands that have lately been
// short run where they were read, one after the other, and their responses
// leave in one writev; so does a longer one of an initiator that waits for each
// answer (see solitude.go). Other commands run side by side on the session's
// workers, which stay for a while when there is nothing to do (see workers.go).
// A command that runs on the reader and turns out to be slow loses it: the
// watchdog starts another reader within milliseconds (see watchdog.go).
//
// Whoever queues a response tries to send it at once, without blocking; what
// the socket does not take is left to the connection's writer (see sender.go).
//
// # Bounds
//
// A peer that has not logged in holds one goroutine, at most loginBufferLength
// bytes of input and maxLoginText bytes of text, for at most LoginTimeout and
// maxLoginPDUs requests; pending.go bounds how many such peers there are. A
// session holds at most QueueDepth commands, and QueueDepth commands that were
// aborted while the store did not let go of them; and Workers goroutines
// in addition to those that run the latter, of which the unused ones end soon. The data
// of all sessions is in BufferBytes of memory: budget.go divides it between
// initiators, memory.go has commands wait for it, and stall.go takes it back from
// those that do not move.
//
// # Locks
//
// Order: session.order → Server.mu → session.mu → sender.mu, budget.mu. No lock is held while the
// DeviceServer runs or while the socket is read or written.
package iscsi
