package api

import (
	"encoding/hex"
	"fmt"

	v1 "odx/api/v1"
	"odx/replica"
	"odx/stream"
)

// SentV1 returns the JSON of a stream.
func SentV1(s replica.Sent) v1.Stream { return streamV1(s.Header, s.Totals) }

func streamV1(h stream.Header, t stream.Totals) v1.Stream {
	text := func(id stream.ID) string {
		if id == (stream.ID{}) {
			return ""
		}
		return id.String()
	}
	return v1.Stream{
		Store: text(h.Store), Volume: text(h.Volume), VolumeName: h.VolumeName, Snapshot: text(h.Snapshot), SnapshotName: h.SnapshotName,
		Base: text(h.Base), BaseName: h.BaseName, File: h.File, SizeBytes: h.Size, BaseBytes: h.BaseSize, Created: h.Created, StartBytes: h.Start,
		Frames: t.Frames, Records: t.Records, DataBytes: t.DataBytes, HoleBytes: t.HoleBytes, StreamBytes: t.StreamBytes,
	}
}

// streamOf fails for identities that no server sends.
func streamOf(s v1.Stream) (h stream.Header, t stream.Totals, err error) {
	h = stream.Header{
		VolumeName: s.VolumeName, SnapshotName: s.SnapshotName, BaseName: s.BaseName, File: s.File,
		Size: s.SizeBytes, BaseSize: s.BaseBytes, Created: s.Created, Start: s.StartBytes,
	}
	for _, id := range []struct {
		to   *stream.ID
		text string
	}{{&h.Store, s.Store}, {&h.Volume, s.Volume}, {&h.Snapshot, s.Snapshot}, {&h.Base, s.Base}} {
		b, err := hex.DecodeString(id.text)
		if err != nil || len(b) != 0 && len(b) != len(id.to) {
			return h, t, fmt.Errorf("the running odx answered with the identity %q", id.text)
		}
		copy(id.to[:], b)
	}
	return h, stream.Totals{Frames: s.Frames, Records: s.Records, DataBytes: s.DataBytes, HoleBytes: s.HoleBytes, StreamBytes: s.StreamBytes}, nil
}

func sentOf(s v1.Stream) (replica.Sent, error) {
	h, t, err := streamOf(s)
	return replica.Sent{Header: h, Totals: t}, err
}

// ReceivedV1 returns the JSON of a stream that was received.
func ReceivedV1(r replica.Received) v1.Received {
	return v1.Received{Name: r.Name, MadeSnapshot: r.Snapshot, Stream: streamV1(r.Header, r.Totals)}
}

func receivedOf(r v1.Received) (replica.Received, error) {
	h, t, err := streamOf(r.Stream)
	return replica.Received{Header: h, Totals: t, Name: r.Name, Snapshot: r.MadeSnapshot}, err
}

// PartialV1 returns the JSON of a stream that ended too early.
func PartialV1(p replica.Partial) v1.Partial { return v1.Partial(p) }

// PartialsV1 returns the JSON of several.
func PartialsV1(list []replica.Partial) []v1.Partial { return each(PartialV1)(list) }

func partialOf(p v1.Partial) replica.Partial { return replica.Partial(p) }
