// Package snapshots takes snapshots of volumes and files by policies of the configuration, and
// deletes those that a policy does not keep.
//
// A snapshot belongs to a policy because a record of the store says so, never because of what
// it is called: the record has the snapshot's identity and is written before it, in one order
// with it. A record whose snapshot does not exist means nothing. So a crash at any instant,
// a snapshot that was renamed, and one that a user made under a name like those of a policy
// are the same simple case: what the records name is the policy's, and nothing else.
//
// A second record for each policy says when it ran last, and what it is about to do: a run
// that the end of the process interrupted is ended by the next one, with its program that
// runs after it.
package snapshots
