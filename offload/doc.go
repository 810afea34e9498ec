// Package offload is the copy engine: it makes a range of one volume equal to what a
// range of another one holds, and moves no bytes where it can map them instead. A
// source is pinned by a snapshot first (Engine.Snapshot, Engine.Pin), which a copy
// reads or maps from, so that it shows one point in time. Such a snapshot is transient:
// it ends with its handle, and with the process.
//
// Bytes are mapped to objects of the engine's store (Object). A View, a volume whose
// bytes are in other volumes, reports where they are (Piece) and passes mappings to
// them. Other volumes are read and written.
//
// A long operation stops when blockdev.Late reports true and returns how much it did,
// so that its caller continues from there; a background copy sizes each step by a Pace.
// The callers decide who may copy what and how long bytes stay pinned: package tokens
// for ROD tokens, vhd for virtual disks, copymgr for EXTENDED COPY.
package offload
