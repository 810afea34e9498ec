// Package admin administers an open store: its volumes, files, virtual disks and
// tokens, and the store as a whole. It needs no server.
//
// Administrator is the interface. A Store of this package implements it on a store that
// this process has open, whether the process serves it (package target opens it then,
// and is its Server) or not (Inspect, InspectReadOnly). The client of package api
// implements it on a store that another process serves.
package admin
