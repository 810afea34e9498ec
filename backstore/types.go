package backstore

import (
	"odx/backstore/record"
	"odx/blockdev"
)

// BlockLength is blockdev.BlockLength.
const BlockLength = blockdev.BlockLength

// Range is blockdev.Range.
type Range = blockdev.Range

// Record is record.Client.
type Record = record.Client

// Change is record.Change.
type Change = record.Change

// UnusedChange is record.UnusedChange.
type UnusedChange = record.UnusedChange
