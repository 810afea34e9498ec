package guest

import (
	"errors"
	"io"
	"net"
	"testing"
)

func TestDesk(t *testing.T) {
	d, err := openDesk(func(question string) (string, error) {
		if question == "time" {
			return "noon", nil
		}
		return "", errors.New("no " + question)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for question, want := range map[string]string{"time": "ok noon\n", "tea please": "error no tea please\n"} {
		c, err := net.Dial("tcp", d.listen.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, question+"\n")
		got, err := io.ReadAll(c)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", question, got, err, want)
		}
	}
}
