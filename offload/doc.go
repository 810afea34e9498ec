// Package offload is the copy engine: it makes a range of one volume equal to what a
// range of another one holds, and moves no bytes where it can map them instead. A
// source is pinned by a snapshot first (Engine.Snapshot, Engine.Pin), which a copy
// reads or maps from, so that it shows one point in time. Such a snapshot is
// transient: it ends with its handle, and with the process.
//
// Volumes of the engine's store (AddressSpace) are mapped. A View, a volume whose
// bytes are in other volumes, says where they are (Piece) and hands mappings down.
// Other volumes are read and written.
//
// An operation that takes long returns how much it did, so that its caller goes on
// from there: it stops as blockdev.Late says, and in the background each step is
// sized by a Pace. Who may copy what, and for how long the bytes stay pinned, is for
// the callers to decide: package tokens for ROD tokens, vhd for virtual disks,
// copymgr for EXTENDED COPY.
package offload
