package scsi

// LogicalUnit is a block device LU: a Volume with its identity and state.
type LogicalUnit struct {
	Volume Volume
}
