package vhdxfile

import "odx/vhd/disk"

// Lengths in a log entry in bytes (MS-VHDX 2.3.1).
const (
	entryHeaderLength = 64
	descriptorLength  = 32
	// maxSectors is the maximum number of updates in an entry: those whose descriptors
	// fit into its first sector. It is less than half of the smallest log.
	maxSectors = (sectorLength - entryHeaderLength) / descriptorLength
)

// logEntry is an entry of the log (MS-VHDX 2.3.1). Offsets and lengths are in bytes.
type logEntry struct {
	tail          uint32
	sequence      uint64
	log           disk.GUID
	flushed, last uint64 // FlushedFileOffset, LastFileOffset
	pieces        []piece
}

// encode encodes an entry of at most maxSectors pieces, each with a sector of data.
func (e logEntry) encode() []byte {
	p := make([]byte, sectorLength*(1+len(e.pieces)))
	copy(p, "loge")
	le.PutUint32(p[8:], uint32(len(p)))
	le.PutUint32(p[12:], e.tail)
	le.PutUint64(p[16:], e.sequence)
	le.PutUint32(p[24:], uint32(len(e.pieces)))
	putGUID(p[32:], e.log)
	le.PutUint64(p[48:], e.flushed)
	le.PutUint64(p[56:], e.last)
	for i, piece := range e.pieces {
		d, s := p[entryHeaderLength+descriptorLength*i:], p[sectorLength*(1+i):][:sectorLength]
		copy(s, piece.data)
		copy(d, "desc")
		copy(d[4:8], s[sectorLength-4:])
		copy(d[8:16], s)
		le.PutUint64(d[16:], uint64(piece.offset))
		le.PutUint64(d[24:], e.sequence)
		copy(s, "data")
		le.PutUint32(s[4:], uint32(e.sequence>>32))
		le.PutUint32(s[sectorLength-4:], uint32(e.sequence))
	}
	seal(p)
	return p
}
