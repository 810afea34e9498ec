// Package peer lets one odx read what another one has: the bytes of a token, of a volume or
// of a file, as of one point in time.
//
// The side that has data gives a hold: a pinned snapshot with a lease (Keeper). The side
// that wants it asks which runs of blocks the hold has, maps those that it had from that
// store before, and reads only the rest (Fetch). A block is named by the ID of the store and
// its slot there, which is never used again, so that no hash and no key crosses the wire.
//
// The server that made a token decides about it: its seal, its life, who may use it. The
// others ask (Tokens), each time. Nothing is agreed on between servers, and no decision
// depends on the clock of another one: a lease is a duration.
//
// A hold pins a transient snapshot: it ends when it is released, when its lease is over, and
// with the process that gave it. So no failure of either side leaves a pin.
//
// Requests are HTTP below /v1/peer/ with the role peer; wire.go has the form of their
// bodies, and docs/peers.md describes it byte by byte.
package peer
