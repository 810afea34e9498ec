//go:build !race

package peer_test

// slowBytes is what is copied over a slow link.
const slowBytes = 256 << 20
