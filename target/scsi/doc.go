// Package scsi is the SCSI device server (SAM-5): it decodes command descriptor
// blocks, runs the SPC-4 and SBC-3 commands of direct access block devices
// against a Volume, and turns errors into sense data.
//
// A Target is a SCSI target device: a name, logical units by LUN, and the I_T
// nexuses that are attached to it. A LogicalUnit is a Volume with an identity,
// mode parameters, reservations and a command table, to which other packages
// add operations (Install) and vital product data pages (InstallVPD). A Task is
// one command; the transport asks Target.Prepare what it needs, moves the data,
// and has Target.Execute run it.
//
// Lock order: Target.mu, then the lock of LogicalUnit.reservations, LogicalUnit.resizing,
// LogicalUnit.mu, itlNexus.mu.
package scsi
