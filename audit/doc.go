// Package audit records who changes what. A change is one line in the server's log, and
// one in a file that is rotated by size, if there is one: what was changed, its state
// before and after, and by whom.
//
// The Actor of a change is in its context, where the receiver of the request puts it:
// the API, the handler of a signal, the transport. A change without one is the server's
// own.
//
// A Log never fails, and never delays a change by more than the lines of the log do: the
// file is written by a goroutine, from a queue with a bound. A line that the file cannot
// take, because the disk is full or a rotation fails, is in the log of the server only;
// that is logged once, and is in Status.
package audit
