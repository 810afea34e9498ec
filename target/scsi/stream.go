package scsi

// StreamPiece is how many bytes of a READ, a WRITE or a comparison with Data-Out are
// in memory for one call of Execute, where the command moves more. It is a multiple of
// every logical block length and of the blocks of the store.
const StreamPiece = 4 << 20

// maximumTransfer bounds what a command may move in pieces, in bytes: iSCSI has 32 bits
// for the length of a transfer.
const maximumTransfer = 1<<32 - StreamPiece

// MaximumTransferLength returns the field of the Block Limits VPD page: logical blocks
// of one command, and of one range descriptor of a copy by token (SBC-3 5.7).
func (lu *LogicalUnit) MaximumTransferLength() uint32 { return maximumTransfer >> lu.blockShift }

// stream is a command that moves its data in pieces, one with each call of Execute.
type stream struct {
	on bool
	// end is how many bytes are to move, done how many have.
	end, done uint32
	more      bool
}

// Streamed reports whether the task moves its data in pieces; it holds from Prepare
// on. The transport then gives Execute the Data-Out in any pieces, of which all but
// the last are multiples of StreamPiece, and calls it again while there is More. Each
// call leaves one piece of Data-In, of at most StreamPiece.
func (t *Task) Streamed() bool { return t.stream.on }

// More reports, after Execute, that it has to be called again: with the next piece of
// Data-Out, if the task has any, or once the Data-In was taken (TakeDataIn).
func (t *Task) More() bool { return t.stream.more }

// TransferLength is how many bytes a streamed task would move as its CDB has it.
func (t *Task) TransferLength() uint32 { return t.TL }

// beginStream has the task move its data in pieces if there is much of it.
func (t *Task) beginStream() { t.stream.on = t.TL > StreamPiece }

// startStream sets how much is to move: what the CDB asks for, but no more than the
// initiator expects, in whole blocks.
func (t *Task) startStream(expected uint32) {
	block := uint64(t.LU.LogicalBlockLength())
	t.stream.end = uint32(min(uint64(t.TL), (uint64(expected)+block-1)/block*block))
}

// piece returns where on the medium the bytes are that this call of Execute moves, at
// most StreamPiece of those that are left, or all where nothing is streamed.
func (t *Task) piece() (offset int64, length int) {
	if !t.stream.on {
		return int64(t.Offset), int(t.TL)
	}
	return int64(t.Offset) + int64(t.stream.done), int(min(StreamPiece, t.stream.end-t.stream.done))
}

// moved ends the call of Execute that moved length bytes.
func (t *Task) moved(length int) {
	if t.stream.on {
		t.stream.done += uint32(length)
		t.stream.more = t.stream.done < t.stream.end
	}
}

// checkPiece refuses Data-Out that is no piece of the stream.
func (t *Task) checkPiece() error {
	have, left := uint32(len(t.DataOut())), t.stream.end-t.stream.done
	if have < left && (have == 0 || have%StreamPiece != 0) {
		return errShortDataOut
	}
	return nil
}
