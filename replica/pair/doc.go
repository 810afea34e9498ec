// Package pair keeps a volume or a file of one server up to date with one of another server,
// and lets the two change roles.
//
// A pair has a source and a replica. The replica's server pulls, in rounds: the source pins
// its content as a point; the replica's server fetches what differs from the point that both
// have in common into a hidden volume, and reveals that in one step; then the source lets go
// of the older point. Both have the common point until both know of a later one, so that no
// crash of either leaves them without.
//
// Each side has a durable record of the pair, which changes in one atomic step with the
// snapshots that it names (a record and a snapshot are in one journal record), so that no
// pinned snapshot is without a record. An epoch in it counts the changes of roles; of two
// sides that both claim to be the source, the one with the greater epoch is right. A source
// that learns of a greater epoch is a former source: frozen, and not served, until an
// administrator makes it the replica of the new one.
//
// No decision compares clocks of two servers: what crosses is how long ago something was.
package pair
