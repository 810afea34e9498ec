// Package foreign makes a LUN of another iSCSI target a volume, which LUNs of this server show
// to initiators: this server is a proxy in front of it. A Disk has one session with the
// target. If that ends, another one is opened in the background; commands wait for it, and are
// sent again, for a bounded time. Then their error is blockdev.ErrUnavailable.
//
// A command that is repeated cannot overtake itself: each session has the same initiator port
// as the one before, so that the target ends that one, with its commands, before it accepts the
// login (session reinstatement, RFC 7143 6.3.5).
//
// Each session begins with the question whether this is the LUN that it was: its identity, its
// block length, and a capacity that is not smaller. So does each unit attention that says that
// something may have changed. Another LUN at the same address is refused.
//
// Writes of LUNs are durable when they return (FUA, or a flush after each where the target does
// not take FUA), so that no flush has to fail because the target has lost its cache since. A copy
// (Disk itself) does not need that: its flush fails once if the session was lost since a
// write, and what was copied is copied again.
package foreign
