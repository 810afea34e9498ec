// Package vhd manages virtual disks: VHD and VHDX files in the store. An operation takes
// a point-in-time view of its sources, creates a new file, maps the payload from the old
// places to the new ones, and renames the new file in one step of the store. Only payload
// that is not at multiples of 4 KiB in both files is moved. A crash at any point leaves
// the old disk or the new one, and a served disk can be the source of an operation.
//
// The name of a file decides its format: .vhd and .avhd are VHD, .vhdx and .avhdx are
// VHDX, all others are raw. Contents never decide, because the guest of a raw disk could
// write a header of another format, with a parent of its choice.
package vhd
