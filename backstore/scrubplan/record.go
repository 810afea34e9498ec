package scrubplan

import (
	"encoding/json"
	"time"
)

// Key is the key of the record that says when the store was scrubbed last.
const Key = "store/scrub"

const recordVersion = 1

// Last says what the last scrub has found that the store began by itself, or that was
// asked for and ended.
type Last struct {
	// Ended is when; zero: there was none yet.
	Ended time.Time
	// Since is from when on the next one is counted; zero: nothing is known.
	Since       time.Time
	Took        string
	ReadBytes   int64
	Damaged     int
	MendedBytes int64
	LostRows    int // parts of the metadata
}

// stored is the record of Last. It is durable: another name here loses what stores have.
type stored struct {
	Version     int       `json:"version"`
	Ended       time.Time `json:"ended"`
	Since       time.Time `json:"since"`
	Took        string    `json:"took,omitempty"`
	ReadBytes   int64     `json:"read_bytes"`
	Damaged     int       `json:"damaged_extents"`
	MendedBytes int64     `json:"mended_bytes"`
	LostRows    int       `json:"lost_metadata"`
}

// Encode returns the record.
func (l Last) Encode() ([]byte, error) {
	return json.Marshal(stored{recordVersion, l.Ended, l.Since, l.Took, l.ReadBytes, l.Damaged, l.MendedBytes, l.LostRows})
}

// Decode reads a record; ok is false for one of a later version.
func Decode(value []byte) (last Last, ok bool, err error) {
	var r stored
	if err := json.Unmarshal(value, &r); err != nil || r.Version != recordVersion {
		return last, false, err
	}
	return Last{r.Ended, r.Since, r.Took, r.ReadBytes, r.Damaged, r.MendedBytes, r.LostRows}, true, nil
}
