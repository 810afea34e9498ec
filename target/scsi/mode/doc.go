// Package mode is the mode parameters of a logical unit (SPC-4 r37 7.5, SBC-3 6.5): its
// pages, their current, default, changeable and saved values, and the bits of them that
// commands look at. The command descriptor blocks, the headers and the block descriptors
// of MODE SENSE and MODE SELECT are the device server's.
package mode
