package tokens_test

import (
	"errors"
	"testing"

	"odx/offload/offloadtest"
	"odx/tokens"
)

// A token that ends between Resolve and its use is refused with the reason.
func TestHandle_OffloadWrite(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind tokens.RODType
		end  func(m *tokens.Manager, tok *tokens.Token) error
		want error
	}{
		{"live", tokens.RODTypePointInTimeDefault, func(*tokens.Manager, *tokens.Token) error { return nil }, nil},
		{"revoked", tokens.RODTypePointInTimeDefault, func(m *tokens.Manager, tok *tokens.Token) error {
			return m.DeleteToken(ctx, tok, tokens.Revoked)
		}, tokens.ErrRevoked},
		{"hash, live", tokens.RODTypeHash, func(*tokens.Manager, *tokens.Token) error { return nil }, nil},
		{"hash, deleted", tokens.RODTypeHash, func(m *tokens.Manager, tok *tokens.Token) error {
			return m.DeleteToken(ctx, tok, tokens.Deleted)
		}, tokens.ErrDeleted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			m := open(t, s, tokens.Limits{})
			v := s.NewVolume("a", volumeSize)
			data := pattern(t, v, 1)
			tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{Type: tt.kind})
			h, err := m.Resolve(tok)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.Info(); got.Length != 4096 || got.Type != tt.kind {
				t.Errorf("%+v", got)
			}
			if err := tt.end(m, tok); err != nil {
				t.Fatal(err)
			}
			n, err := h.OffloadWrite(ctx, 0, destination(v), ranges(8192, 4096), tokens.WriteOptions{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if got := contents(t, v)[8192:]; (n == 4096) != (tt.want == nil) || (got[0] == data[0] && got[4095] == data[4095]) != (tt.want == nil) {
				t.Errorf("%d bytes written", n)
			}
			r, err := h.OpenReader(ctx, tokens.ReaderOptions{})
			if !errors.Is(err, tt.want) {
				t.Errorf("reader: %v, want %v", err, tt.want)
			}
			if err == nil {
				r.Close()
			}
		})
	}
}
