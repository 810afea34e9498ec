package tokenclient

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeSense(t *testing.T) {
	for _, c := range []struct{ name, sense, want string }{
		{"fixed", "70 00 05 00000000 0a 00000000 24 00 00 000000", "5/24/00"},
		{"fixed with information", "f0 00 0a 00001000 0a 00000000 0d 04 00 000000", "A/0D/04 information 4096"},
		{"descriptor", "72 05 23 09 000000 00", "5/23/09"},
		{"descriptor with information", "72 0a 0d 04 000000 14 02 06 00000000 0000 00 0a 80 00 0000000100000000", "A/0D/04 information 4294967296"},
	} {
		s, err := decodeSense(unhex(t, c.sense))
		if err != nil || s.String() != c.want {
			t.Errorf("%s: %v, %v, want %s", c.name, s, err, c.want)
		}
	}
	for _, bad := range []string{"", "7000", "7000050000", "7100050000000a00000000240000000000"} {
		if s, err := decodeSense(unhex(t, bad)); err == nil {
			t.Errorf("%q was taken for %v", bad, s)
		}
	}
}

func TestParseTokenInformation(t *testing.T) {
	token := bytes.Repeat([]byte{0xab}, TokenLength)
	withToken := "00000222 10 01 0001 fffffffe 00 00 00 f1 0000000000000800 0000 000000000000 00000202 0000" + hex.EncodeToString(token)
	info, err := parseTokenInformation(unhex(t, withToken))
	if err != nil || info.TransferCount != 2048 || info.ServiceAction != 0x10 || !bytes.Equal(info.Token, token) {
		t.Errorf("a token: %+v, %v", info, err)
	}
	withSense := "00000034 11 02 0001 fffffffe 02 14 12 f1 0000000000000000 0000 000000000000 7000050000 00000a000000002600000000 00000000 0000 00000000"
	info, err = parseTokenInformation(unhex(t, withSense)[:56])
	if err != nil || len(info.Sense) != 18 || info.Token != nil {
		t.Errorf("sense data: %+v, %v", info, err)
	}
	for name, bad := range map[string]string{
		"short":             withToken[:60],
		"extra length":      strings.Replace(withToken, "00000202 0000", "00000204 0000", 1),
		"wrong total":       strings.Replace(withToken, "00000222", "00000220", 1),
		"cut":               withToken[:len(withToken)-2],
		"odd sense field":   strings.Replace(withToken, "00 00 00 f1", "00 02 02 f1", 1),
		"sense over length": strings.Replace(withToken, "00 00 00 f1", "00 04 05 f1", 1),
	} {
		if info, err := parseTokenInformation(unhex(t, bad)); err == nil {
			t.Errorf("%s was taken for %+v", name, info)
		}
	}
}
