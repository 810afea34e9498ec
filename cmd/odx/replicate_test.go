package main

import (
	"strings"
	"testing"

	v1 "odx/api/v1"
)

// TestReplicaText_Adopted: what came along of reservations, and what did not.
func TestReplicaText_Adopted(t *testing.T) {
	for name, tt := range map[string]struct {
		adopted *v1.ReplicaAdopted
		want    string
	}{
		"not asked for":     {nil, "this side is the source, web"},
		"all":               {&v1.ReplicaAdopted{}, "this side is the source, web"},
		"some were dropped": {&v1.ReplicaAdopted{DroppedRegistrations: 3}, "target port: 3"},
		"by force":          {&v1.ReplicaAdopted{AgeSeconds: 90}, "had 1m30s ago"},
		"both":              {&v1.ReplicaAdopted{AgeSeconds: 1, DroppedRegistrations: 12}, "had 1s ago; registrations that were dropped, because the LUN here does not have their target port: 12"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := replicaText(&v1.Replica{Role: "source", Object: "web", Adopted: tt.adopted}); !strings.HasSuffix(got, tt.want) {
				t.Errorf("%q, want %q at the end", got, tt.want)
			}
		})
	}
}
