// Package conformance compares docs/conformance.md with a running target: what
// that says of itself, a command, a page at a time, and the tests that the
// document names.
package conformance
