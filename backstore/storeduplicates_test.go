package backstore

import (
	"context"
	"testing"
)

// TestVolume_StoreDuplicates: with deduplication off for one volume, neither its data
// nor that of others is found again, in any order of writing.
func TestVolume_StoreDuplicates(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		name          string
		first, second string
		want          int64 // blocks that are stored
	}{
		{"both are deduplicated", "a", "b", 1},
		{"the first is not", "apart", "a", 2},
		{"the second is not", "a", "apart", 2},
		{"twice in the one that is not", "apart", "apart", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newDisk().open(t, 4<<10)
			defer s.Close()
			for _, name := range []string{"a", "b", "apart"} {
				createVolume(t, s, name, 1<<20).StoreDuplicates(name == "apart")
			}
			data := randomBytes(7, BlockLength)
			for i, name := range []string{tt.first, tt.second} {
				v, err := s.Volume(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := v.WriteAt(ctx, data, int64(i)*BlockLength); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.LiveBytes() / BlockLength; got != tt.want {
				t.Errorf("%d blocks are stored, want %d", got, tt.want)
			}
		})
	}
}
