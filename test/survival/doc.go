// Package survival kills servers, cuts their power, fills their disks and damages their
// stores, and compares what clients find afterwards with what may be there.
package survival
