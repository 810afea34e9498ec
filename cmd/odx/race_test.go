//go:build race

package main

// raceDetector: the binary, and so the server that the tests start, has the race detector.
const raceDetector = true
