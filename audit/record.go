package audit

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"
)

// recordVersion is the version of the lines of the file.
const recordVersion = 1

// maxValue bounds the text of a state before or after a change in bytes, and that of a
// subject or an error.
const maxValue = 2048

// record is a line of the file.
type record struct {
	Version int             `json:"version"`
	Time    time.Time       `json:"time"`
	What    string          `json:"what"`
	Subject string          `json:"subject,omitempty"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
	Error   string          `json:"error,omitempty"`
	By      recordActor     `json:"by"`
	// Requests and Bytes are those of a line for several changes, since Since; Failed of
	// the requests had errors.
	Requests int       `json:"requests,omitempty"`
	Failed   int       `json:"failed,omitempty"`
	Bytes    int64     `json:"bytes,omitempty"`
	Since    time.Time `json:"since,omitzero"`

	actor Actor
}

// recordActor is an Actor. UID is a pointer, because that of root is 0.
type recordActor struct {
	Kind    Kind    `json:"kind"`
	Name    string  `json:"name,omitempty"`
	UID     *uint32 `json:"uid,omitempty"`
	PID     int32   `json:"pid,omitempty"`
	Address string  `json:"address,omitempty"`
}

func recordOf(a Actor) recordActor {
	r := recordActor{Kind: a.Kind, Name: bounded(a.Name), PID: a.PID, Address: a.Address}
	if a.Kind == Local {
		r.UID = &a.UID
	}
	return r
}

// print writes the line of the log.
func (r *record) print(log *logrus.Entry) {
	fields := logrus.Fields{"audit": r.What, "by": r.actor.String()}
	for name, text := range map[string]string{
		"subject": r.Subject, "before": textOf(r.Before), "after": textOf(r.After), logrus.ErrorKey: r.Error,
	} {
		if text != "" {
			fields[name] = text
		}
	}
	if r.Requests > 0 {
		fields["requests"], fields["bytes"] = r.Requests, r.Bytes
	}
	if r.Failed > 0 {
		fields["failed"] = r.Failed
	}
	log.WithFields(fields).Info("change")
}

// line returns the line of the file.
func (r *record) line() []byte {
	text, err := json.Marshal(r)
	if err != nil { // a state is valid JSON, and the rest always encodes
		text = fmt.Appendf(nil, `{"version":%d,"what":"audit","error":%q}`, recordVersion, err)
	}
	return append(text, '\n')
}

// stateOf returns a state as JSON; nil for none. One that is too long is cut, and becomes
// a string.
func stateOf(state any) json.RawMessage {
	if state == nil || state == "" {
		return nil
	}
	text, err := json.Marshal(state)
	switch {
	case err != nil:
		text, _ = json.Marshal("not encoded: " + err.Error())
	case len(text) > maxValue:
		whole := string(text)
		if s, ok := state.(string); ok {
			whole = s
		}
		text, _ = json.Marshal(bounded(whole))
	}
	return text
}

// textOf returns a state for the log: a string without its quotes.
func textOf(state json.RawMessage) string {
	var s string
	if json.Unmarshal(state, &s) == nil {
		return s
	}
	return string(state)
}

// bounded cuts a text that is too long, and appends its length.
func bounded(text string) string {
	if len(text) <= maxValue {
		return text
	}
	cut := maxValue
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:cut], len(text))
}
