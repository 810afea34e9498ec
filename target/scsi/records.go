package scsi

import "odx/target/scsi/record"

// Records stores what a logical unit must not lose with the power; see record.Store.
type Records = record.Store
