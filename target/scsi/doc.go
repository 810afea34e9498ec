// Package scsi is the SCSI device server (SAM-5): it decodes command descriptor blocks,
// runs the SPC-4 and SBC-3 commands of direct access block devices against a Volume,
// and turns errors into sense data.
//
// A Target is a SCSI target device: a name, logical units by LUN, and the attached I_T
// nexuses. A LogicalUnit is a Volume with an identity, mode parameters, reservations
// and a command table, to which other packages add operations (Install) and vital
// product data pages (InstallVPD). A Task is one command: the transport calls
// Target.Prepare to learn its data lengths, moves the data, and calls Target.Execute to
// run it, once Task.Enabled: other tasks and limits (package qos) may hold it back.
//
// What a target has, and what a nexus may use of it, changes while commands arrive:
// Target.Reconfigure and Readmit.
//
// Lock order: Target.mu, then the lock of LogicalUnit.reservations,
// LogicalUnit.resizing, LogicalUnit.mu, itlNexus.mu and the locks of package qos. The lock
// of a task set precedes those of package qos, and these that of a hold.
package scsi
