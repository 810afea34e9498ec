// Package admin is what an administrator does to an open store: to its volumes,
// files, virtual disks and tokens, and to the store as a whole. Nothing of it needs a
// server.
//
// Administrator is the interface. A Store of this package implements it on a store that
// this process has open, whether the process serves it (package target opens it then,
// and is its Server) or not (Inspect, Look). The client of package api implements it on
// a store that another process serves.
package admin
