package backstore

import (
	"odx/backstore/damage"
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

// Damaged is damage.Damaged.
type Damaged = damage.Damaged

// Mended is damage.Mended.
type Mended = damage.Mended
