// Package mode has the mode parameters of a logical unit (SPC-4 r37 7.5, SBC-3 6.5):
// the pages, their current, default, changeable and saved values, and the bits that
// commands evaluate. The device server has the command descriptor blocks, headers and
// block descriptors of MODE SENSE and MODE SELECT.
package mode
