package scsi

// StreamPiece is how many bytes of a READ, a WRITE or a comparison with Data-Out are in
// memory for one call of Execute, if the command is longer. It is a multiple of every
// logical block length and of the block length of the store.
const StreamPiece = 4 << 20

// maximumTransfer bounds the data of a streamed command in bytes: iSCSI has 32 bits for
// the length of a transfer.
const maximumTransfer = 1<<32 - StreamPiece

// MaximumTransferLength returns the field of the Block Limits VPD page: the limit of
// one command in logical blocks, and of one range descriptor of a copy by token (SBC-3
// 5.7).
func (lu *LogicalUnit) MaximumTransferLength() uint32 { return maximumTransfer >> lu.blockShift }

// stream is the progress of a command that moves its data in pieces, one with each call
// of Execute.
type stream struct {
	on bool
	// end is the number of bytes to move, done the number moved.
	end, done uint32
	more      bool
}

// Streamed reports whether the task moves its data in pieces, from Prepare on. The
// transport then calls Execute with pieces of Data-Out, all but the last multiples of
// StreamPiece, while there is More. Each call returns one piece of Data-In of at most
// StreamPiece.
func (t *Task) Streamed() bool { return t.stream.on }

// More reports, after Execute, that another call is needed: with the next piece of
// Data-Out if the task has any, or after the Data-In was taken (TakeDataIn).
func (t *Task) More() bool { return t.stream.more }

// TransferLength is the number of bytes that the CDB of a streamed task requests.
func (t *Task) TransferLength() uint32 { return t.TL }

// enableStream makes the task streamed if it is longer than one piece.
func (t *Task) enableStream() { t.stream.on = t.TL > StreamPiece }

// startStream sets the number of bytes to move: the whole blocks of the CDB that the
// initiator expects.
func (t *Task) startStream(expected uint32) {
	block := uint64(t.LU.LogicalBlockLength())
	t.stream.end = uint32(min(uint64(t.TL), (uint64(expected)+block-1)/block*block))
}

// piece returns the range of the medium for this call of Execute: at most StreamPiece
// of the remaining bytes, or all if the task is not streamed.
func (t *Task) piece() (offset int64, length int) {
	if !t.stream.on {
		return int64(t.Offset), int(t.TL)
	}
	return int64(t.Offset) + int64(t.stream.done), int(min(StreamPiece, t.stream.end-t.stream.done))
}

// moved ends a call of Execute that moved length bytes.
func (t *Task) moved(length int) {
	t.bytes += uint64(length)
	if t.stream.on {
		t.stream.done += uint32(length)
		t.stream.more = t.stream.done < t.stream.end
	}
}

// checkPiece refuses Data-Out that is not a piece of the stream.
func (t *Task) checkPiece() error {
	have, left := uint32(len(t.DataOut())), t.stream.end-t.stream.done
	if have < left && (have == 0 || have%StreamPiece != 0) {
		return errShortDataOut
	}
	return nil
}
