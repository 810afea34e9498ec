//go:build race

package peer_test

// slowBytes is what is copied over a slow link: each byte costs much more with the detector.
const slowBytes = 16 << 20
