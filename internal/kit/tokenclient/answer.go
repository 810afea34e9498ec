package tokenclient

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// SCSI status codes (SAM-5 5.3.1).
const (
	Good           = 0x00
	CheckCondition = 0x02
)

// Answer is how the target answered one command.
type Answer struct {
	Status   int
	Sense    Sense // of a CheckCondition
	Data     []byte
	Residual int // bytes; below 0 when the target had more
	Elapsed  time.Duration
	Blocks   uint64 // of a transfer: in commands that ended Good
}

// Good reports whether the command succeeded.
func (a Answer) Good() bool { return a.Status == Good }

func (a Answer) String() string {
	if a.Status == CheckCondition {
		return "CHECK CONDITION " + a.Sense.String()
	}
	return fmt.Sprintf("status %02Xh", a.Status)
}

// Sense is decoded sense data.
type Sense struct {
	Key, ASC, ASCQ byte
	Information    uint64
	HasInformation bool // the VALID bit
}

// String writes key/ASC/ASCQ as the standards do, in hex.
func (s Sense) String() string {
	text := fmt.Sprintf("%X/%02X/%02X", s.Key, s.ASC, s.ASCQ)
	if s.HasInformation {
		text += fmt.Sprintf(" information %d", s.Information)
	}
	return text
}

// Is compares key, additional sense code and its qualifier.
func (s Sense) Is(key, asc, ascq byte) bool { return s.Key == key && s.ASC == asc && s.ASCQ == ascq }

// decodeSense reads fixed (70h) and descriptor (72h) format, SPC-4 4.5.
func decodeSense(b []byte) (Sense, error) {
	if len(b) < 8 {
		return Sense{}, fmt.Errorf("sense data of %d bytes", len(b))
	}
	switch b[0] & 0x7f {
	case 0x70:
		if len(b) < 14 {
			return Sense{}, fmt.Errorf("fixed sense data of %d bytes", len(b))
		}
		return Sense{
			Key: b[2] & 0x0f, ASC: b[12], ASCQ: b[13],
			HasInformation: b[0]&0x80 != 0,
			Information:    uint64(binary.BigEndian.Uint32(b[3:7])),
		}, nil
	case 0x72:
		s := Sense{Key: b[1] & 0x0f, ASC: b[2], ASCQ: b[3]}
		for d := b[8:]; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
			if d[0] == 0x00 && d[1] == 0x0a {
				s.HasInformation = d[2]&0x80 != 0
				s.Information = binary.BigEndian.Uint64(d[4:12])
			}
		}
		return s, nil
	}
	return Sense{}, fmt.Errorf("sense data of response code %02Xh", b[0]&0x7f)
}

// wireAnswer is a line that the client prints.
type wireAnswer struct {
	Error       string
	Status      int
	US          int64
	Sense, Data string
	Residual    int
	Chunk       int
	Blocks      uint64
	BlockLength int `json:"block_length"`
	Sent        int64
	Received    int64
}

func parseLine(line []byte) (wireAnswer, error) {
	var w wireAnswer
	if err := json.Unmarshal(line, &w); err != nil {
		return w, fmt.Errorf("answer %q: %w", line, err)
	}
	if w.Error != "" {
		return w, fmt.Errorf("libiscsi: %s", w.Error)
	}
	return w, nil
}

func (w wireAnswer) answer() (Answer, error) {
	a := Answer{Status: w.Status, Residual: w.Residual, Elapsed: time.Duration(w.US) * time.Microsecond, Blocks: w.Blocks}
	var err error
	if a.Data, err = hex.DecodeString(w.Data); err != nil {
		return a, err
	}
	if w.Status == CheckCondition {
		sense, err := hex.DecodeString(w.Sense)
		if err != nil {
			return a, err
		}
		a.Sense, err = decodeSense(sense)
		return a, err
	}
	return a, nil
}

// TokenInformation is what RECEIVE ROD TOKEN INFORMATION said (SPC-4 6.26).
type TokenInformation struct {
	AvailableData   uint32
	ServiceAction   byte // of the command it is about
	OperationStatus byte // COPY OPERATION STATUS; 01h: without errors
	CompletionSCSI  byte // EXTENDED COPY COMPLETION STATUS
	Units           byte // F1h: logical blocks
	TransferCount   uint64
	Segments        uint16
	Sense           []byte
	Token           []byte // 512 bytes, or none
}

// parseTokenInformation reads the whole parameter data, strictly.
func parseTokenInformation(b []byte) (TokenInformation, error) {
	var t TokenInformation
	if len(b) < 36 {
		return t, fmt.Errorf("parameter data of %d bytes, at least 36 wanted", len(b))
	}
	t = TokenInformation{
		AvailableData: binary.BigEndian.Uint32(b), ServiceAction: b[4] & 0x1f, OperationStatus: b[5] & 0x7f,
		CompletionSCSI: b[12], Units: b[15],
		TransferCount: binary.BigEndian.Uint64(b[16:]), Segments: binary.BigEndian.Uint16(b[24:]),
	}
	field, used := int(b[13]), int(b[14])
	if field%4 != 0 || used > field || len(b) < 32+field+4 {
		return t, fmt.Errorf("sense data: field of %d bytes, %d used, in %d bytes", field, used, len(b))
	}
	t.Sense = b[32 : 32+used]
	b = b[32+field:]
	length := int(binary.BigEndian.Uint32(b))
	b = b[4:]
	if want := uint32(32 + field + length); t.AvailableData != want {
		return t, fmt.Errorf("AVAILABLE DATA is %d, the fields add up to %d", t.AvailableData, want)
	}
	switch {
	case length == 0:
	case length != 2+TokenLength || len(b) < length:
		return t, fmt.Errorf("ROD TOKEN DESCRIPTORS LENGTH is %d with %d bytes left", length, len(b))
	default:
		t.Token = b[2:length]
	}
	return t, nil
}
