package copymgr

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"odx/tokens"
)

// A copy whose token is revoked while it runs finishes, or reports its progress,
// depending on the policy; in the background, with many steps, too. Later copies are
// refused. The log and the counters have the result.
func TestWriteUsingToken_Revoked(t *testing.T) {
	const block, copied = 4096, 64
	for name, tc := range map[string]struct {
		policy     tokens.RunningCopy
		background bool
	}{
		"finish":                    {tokens.FinishCopy, false},
		"finish, in the background": {tokens.FinishCopy, true},
		"abort":                     {tokens.AbortCopy, false},
		"abort, in the background":  {tokens.AbortCopy, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := tokens.Options{Policy: tokens.Policy{RunningCopy: tc.policy}}
			b := startWith(t, o)
			b.hurry = tc.background // a background copy continues all the same
			data := b.fill(t, lunA, 1)
			old := b.fill(t, lunB, 2)
			token := b.token(t, lunA, rangeOf{0, copied * block / 512})
			s := b.stepMaps(block)
			parameters := writeParameters(token, 0, rangeOf{0, copied})
			if tc.background {
				parameters = immediate(parameters)
			}
			answered := make(chan answer, 1)
			go func() { answered <- b.writeUsing(lunB, 5, parameters) }()
			s.step()
			<-s.entered // the second block is on its way
			if err := b.tokens.Delete(ctx, tokens.ID(binary.BigEndian.Uint64(token[8:])), tokens.Revoked); err != nil {
				t.Fatal(err)
			}
			b.store.FailWith(nil) // not used before the next block
			s.proceed <- struct{}{}
			a := <-answered
			b.await(lunB, 5)
			p := b.rodTokenInformation(lunB, 5, 805).data
			count := binary.BigEndian.Uint64(p[16:])
			late := b.writeUsing(lunB, 6, writeParameters(token, 0, rangeOf{100, 1}))
			if late.code() != "5/23/06" {
				t.Errorf("later: %s", late.code())
			}
			stats := b.manager.Stats()
			if stats.RefusedBy["23h/06h"] != 1 {
				t.Errorf("counted: %+v", stats)
			}
			if tc.policy == tokens.FinishCopy {
				if a.code() != "GOOD" || p[5] != 0x01 || count != copied || stats.Written != 1 || stats.Partial != 0 {
					t.Errorf("%s, report % x, counted %+v", a.code(), p, stats)
				}
			} else {
				reported, ok := a.information()
				if underrun := a.code() == "A/0D/04" && ok && uint64(reported) == count; underrun == tc.background {
					t.Errorf("answer %s, %d", a.code(), reported)
				}
				if p[5] != 0x04 || p[12] != 0x02 || count == 0 || count >= copied || stats.Partial != 1 || stats.Written != 0 {
					t.Errorf("report % x, counted %+v", p, stats)
				}
				if log := b.log.String(); !strings.Contains(log, "copy command ended early") || !strings.Contains(log, tokens.ErrRevoked.Error()) {
					t.Errorf("the log has %q", log)
				}
			}
			copy(old, data[:count*block])
			if !bytes.Equal(b.contents(t, lunB), old) {
				t.Error("wrong data")
			}
		})
	}
}
