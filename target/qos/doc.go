// Package qos holds work back that exceeds a limit: operations and bytes a second, each
// with a burst.
//
// A Limiter has the limits of one client or one resource. Work passes it in the order in
// which it came; work that has to wait occupies no goroutine, and may be withdrawn at any
// time. The limits can change while work waits, and then hold for it at once. A Limiter
// without limits costs an atomic load.
//
// A Waiter takes work through several limiters, one after the other: it takes nothing of
// the second limit while it waits for the first.
//
// Initiators has a Limiter for each initiator that is there.
//
// Locks: that of Initiators, then that of a Waiter, then that of a Limiter. A wake-up is
// called with the lock of its Waiter held.
package qos
