// Package vhd is the manager of virtual disks: VHD and VHDX files in the store, and
// what is done with them. No operation moves payload that is in the store already. It
// holds its sources as they are at one point in time, makes a new file next to them, maps the
// payload from the old places to the new ones, and gives the new file its name in one
// step of the store. So a crash at any point leaves the old disk or the new one, and
// a served disk can be the source of an operation.
//
// A file is what its name says: .vhd and .avhd are VHD, .vhdx and .avhdx are VHDX, all
// others are raw. Contents never decide, because the guest of a raw disk could
// make it look like another format, with a parent of his choice.
package vhd
