package mode

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
)

// modeRecord is the key under which mode parameters are saved, and current ones kept.
const modeRecord = "modes"

// RecordKey is the key of both, for what copies them to another server.
const RecordKey = modeRecord

// savedModesVersion is the version of savedModes.
const savedModesVersion = 1

// savedModes is the durable record of saved mode parameters, and that of current ones:
// renaming a field loses them. Its first format, without a version, is the concatenated pages.
type savedModes struct {
	Version int      `json:"version"`
	Pages   [][]byte `json:"pages"` // in the format of MODE SELECT
}

// encodeModes returns the record of pages.
func encodeModes(pages [][]byte) ([]byte, error) {
	return json.Marshal(savedModes{Version: savedModesVersion, Pages: pages})
}

// decodeModes returns the concatenated pages of a record.
func decodeModes(record []byte) ([]byte, error) {
	if len(record) == 0 || record[0] != '{' {
		return record, nil // '{' is not a page code in use
	}
	var s savedModes
	if err := json.Unmarshal(record, &s); err != nil {
		return nil, fmt.Errorf("record of the mode pages: %w", err)
	}
	if s.Version != savedModesVersion {
		return nil, fmt.Errorf("record of the mode pages: version %d, not %d; use a version of odx that reads it", s.Version, savedModesVersion)
	}
	return slices.Concat(s.Pages...), nil
}

// restore sets values of record in pages, where they are changeable.
func (m *Parameters) restore(pages [][]byte, record []byte) {
	for len(record) >= 4 {
		code, subpage, length := record[0]&0x3F, byte(0), 2+int(record[1])
		if record[0]&0x40 != 0 {
			subpage, length = record[1], 4+int(binary.BigEndian.Uint16(record[2:]))
		}
		if length > len(record) {
			return
		}
		if i := m.find(code, subpage); i >= 0 && len(pages[i]) == length {
			at := 2
			if subpage != 0 {
				at = 4
			}
			for ; at < length; at++ {
				can := m.pages[i].changeable[at]
				pages[i][at] = m.pages[i].defaults[at]&^can | record[at]&can
			}
		}
		record = record[length:]
	}
}
