// Package migrate moves the LUNs on a volume to another place while initiators write to
// them. A migration takes a snapshot of the volume, copies it, and then follows the writers:
// each round takes the next snapshot and copies what differs from the one before. Once a
// round is short, the cut: the server holds the commands of the logical unit, the last
// difference is copied, and the configuration file is replaced by one that names the
// destination. That one act decides which side serves: before it the source does, whatever
// happens, and after it the destination. The volume below the logical unit is replaced, and
// the commands go on.
//
// A record in the store says how far a migration is, in the same order as the snapshots that
// it keeps; the next start goes on from there, or ends what was to end. docs/migration.md has
// the steps, and what a crash does in each.
package migrate
