package cli_test

import (
	"bytes"
	"go/format"
	"testing"
)

func TestEveryFileIsFormatted(t *testing.T) {
	walkGo(t, "..", func(name string, data []byte) {
		formatted, err := format.Source(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if !bytes.Equal(data, formatted) {
			t.Errorf("%s is not as gofmt writes it", name)
		}
	})
}
