package main

import (
	"os"
	"runtime/debug"

	"odx/backstore"
)

// besidesCache is what a server needs beside the store's caches: Badger's
// tables, the journal's buffer, the data of commands in flight.
const besidesCache = 160 << 20

// limitMemory makes the collector work harder when the heap comes near what
// the configured cache allows, instead of letting garbage double it. It is not
// a bound on what can be allocated. GOMEMLIMIT, where it is set, has its way.
func limitMemory(cacheBytes int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if cacheBytes == 0 {
		cacheBytes = backstore.DefaultCacheBytes
	}
	debug.SetMemoryLimit(cacheBytes + besidesCache)
}
