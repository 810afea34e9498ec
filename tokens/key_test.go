package tokens_test

import (
	"testing"

	"odx/internal/kit/must"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// TestOptions_SealKey: the given key is that of a store which has none, and stays when another one
// is given later.
func TestOptions_SealKey(t *testing.T) {
	key, later := [32]byte{7, 8}, [32]byte{9}
	stored := func(s *offloadtest.Store, given *[32]byte) string {
		t.Helper()
		m, err := tokens.Open(ctx, tokens.Options{Store: s, SealKey: given})
		must.Succeed(t, err)
		must.Succeed(t, m.Close())
		b, err := s.GetRecord([]byte("token/key"))
		must.Succeed(t, err)
		return string(b)
	}
	s := offloadtest.NewStore([16]byte{1})
	if stored(s, &key) != string(key[:]) || stored(s, &later) != string(key[:]) || stored(s, nil) != string(key[:]) {
		t.Error("the store does not keep the key that it was given first")
	}
	if got := stored(offloadtest.NewStore([16]byte{2}), nil); got == string(key[:]) || len(got) != 32 {
		t.Errorf("without a given key it is %x", got)
	}
}
