//go:build !race

package target

// raceDetector: times say nothing.
const raceDetector = false
